// Ways to the server that do not lead back: what browsers send arrives, and what the server answers there does not. Firefox
// nominates such a pair too, for the server is ICE-lite (RFC 8445 §8.1.1). In a network namespace, whose filter is ours alone.

import { filter } from '../filter.mjs';
import { check } from '../stage.mjs';
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
