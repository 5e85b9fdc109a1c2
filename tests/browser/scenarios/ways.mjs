// Ways to the server that do not lead back: what browsers send arrives, and what the server answers there does not. Firefox
// nominates such a pair too, for the server is ICE-lite (RFC 8445 §8.1.1). In a network namespace, whose filter is ours alone.

import { filter } from '../filter.mjs';
import { check, until } from '../stage.mjs';
import { MEDIA_PORTS } from '../server.mjs';

/** Both, so that each sends and receives on such a network. */
const PEOPLE = [
  ['Fox', { browser: 'firefox', fake: false }],
  ['Ana', {}],
];

/** Lets nothing through of what these match, and everything else. */
function close(...matches) {
  filter(
    'add chain inet weir ways { type filter hook output priority 0; }',
    ...matches.map((match) => `add rule inet weir ways ${match} drop`),
  );
}

/** Both see and hear each other, and the server knows by which way. */
async function meet({ stage, control, room, step }, way, isThatWay) {
  const [fox, ana] = await Promise.all(PEOPLE.map(([name, options]) => stage.enter(name, options)));
  for (const [one, other] of [
    [ana, fox],
    [fox, ana],
  ]) {
    await one.perceives(other.name, 'video', 20);
    await one.perceives(other.name, 'audio');
    step(`${way}: ${one.name} sees and hears ${other.name}`);
  }
  const tuples = (await control.transports(room)).map(({ webrtc }) => webrtc.iceSelectedTuple);
  check(tuples.length === 4 && tuples.every(isThatWay), `other ways than ${way}: ${JSON.stringify(tuples)}`);
}

export async function waysOfWhichUdpDoesNotLeadBack(play) {
  close(`udp sport ${MEDIA_PORTS}`);
  await meet(play, 'TCP', ({ protocol }) => protocol === 'tcp');
}

const TCP = `tcp dport ${MEDIA_PORTS}`;

export async function waysOfWhichIpv4DoesNotLeadBack(play) {
  close(TCP, `meta nfproto ipv4 udp sport ${MEDIA_PORTS}`);
  await meet(play, 'IPv6', ({ localIP }) => localIP.includes(':'));
}

export async function waysOfWhichIpv6DoesNotLeadBack(play) {
  close(TCP, `meta nfproto ipv6 udp sport ${MEDIA_PORTS}`);
  await meet(play, 'IPv4', ({ localIP }) => localIP.includes('.'));
}

/**
 * A network that goes away while people talk: each goes on by another one. The server sends there only when the browser has answered a
 * check of the server's, which has no credentials (RFC 8489 §9.1.3).
 */
export async function waysThatEndWhilePeopleTalk({ stage, control, room, step }) {
  close(TCP);
  const [ben, ana] = await Promise.all(['Ben', 'Ana'].map((name) => stage.enter(name)));
  const seeEachOther = async (when) => {
    await Promise.all([ana.perceives('Ben', 'video', 20), ben.perceives('Ana', 'video', 20)]);
    step(`${when}: both see each other`);
  };
  await seeEachOther('before');
  const isIpv6 = ({ localIP }) => localIP.includes(':');
  const tuples = async () => (await control.transports(room)).map(({ webrtc }) => webrtc.iceSelectedTuple);
  const before = await tuples();
  const was = isIpv6(before[0]);
  check(before.length === 4 && before.every((tuple) => isIpv6(tuple) === was), `two families: ${JSON.stringify(before)}`);
  const family = was ? 'ipv6' : 'ipv4';
  close(TCP, `meta nfproto ${family} udp sport ${MEDIA_PORTS}`, `meta nfproto ${family} udp dport ${MEDIA_PORTS}`);
  await until('all to go on by the other family', async () => (await tuples()).every((tuple) => isIpv6(tuple) !== was));
  await seeEachOther(`after ${family} has gone`);
}
