// Handshakes of which a fifth of the datagrams is lost, in each direction: all of them end well, whoever begins. In a network
// namespace, whose filter is ours alone. Nothing but DTLS is lost, so that it is not ICE that is tried.

import { counted, filter } from '../filter.mjs';
import { MEDIA_PORTS } from '../server.mjs';
import { check, until } from '../stage.mjs';

const HANDSHAKES = 100;

/** So many of them at once. */
const BATCH = 25;

const LOST_PERCENT = 20;

/**
 * A bound on one handshake, far from what any takes, though both sides wait twice as long each time; and one that all batches fit
 * under the bound of a scenario with, so that a failure says how many have failed.
 */
const HANDSHAKE_MS = 60_000;

/** Which datagrams are of DTLS: their first byte says so (RFC 7983 §7), which follows the 64 bits of the header of UDP. */
const DTLS = '@th,64,8 >= 20 @th,64,8 <= 63';

/**
 * Loses datagrams where they arrive, and counts them. Where they leave, the filter would tell the sender (EPERM), as no network
 * does; and on loopback each passes both places.
 */
function lose() {
  const rule = (name, ports) =>
    `add rule inet weir losses udp ${ports} ${MEDIA_PORTS} ${DTLS} counter name ${name} ` +
    `numgen random mod 100 < ${LOST_PERCENT} counter name ${name}_lost drop`;
  filter(
    ...['there', 'there_lost', 'back', 'back_lost'].map((name) => `add counter inet weir ${name}`),
    'add chain inet weir losses { type filter hook input priority 0; }',
    rule('there', 'dport'),
    rule('back', 'sport'),
  );
}

/** In the page: makes connections, and returns what their offers say. */
async function offer(count) {
  window.connections ??= [];
  const offers = [];
  for (let made = 0; made < count; made += 1) {
    const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    window.connections.push(connection);
    connection.addTransceiver('audio', { direction: 'recvonly' });
    await connection.setLocalDescription();
    offers.push(connection.localDescription.sdp);
  }
  return offers;
}

/** In the page: lets the newest connections begin by these answers, and returns how each ended, and after how long. */
async function connect([answers, patience]) {
  const newest = window.connections.slice(-answers.length);
  const one = async (connection, sdp) => {
    const begun = performance.now();
    const ended = new Promise((resolve) => {
      connection.addEventListener('connectionstatechange', () => {
        if (['connected', 'failed', 'closed'].includes(connection.connectionState)) {
          resolve();
        }
      });
      setTimeout(resolve, patience);
    });
    await connection.setRemoteDescription({ type: 'answer', sdp });
    await ended;
    return { state: connection.connectionState, ice: connection.iceConnectionState, ms: performance.now() - begun };
  };
  return Promise.all(newest.map((connection, index) => one(connection, answers[index])));
}

/** What a line of an SDP says. */
function said(sdp, pattern) {
  const found = pattern.exec(sdp);
  check(found, `no ${pattern} in ${sdp}`);
  return found[1];
}

/** Makes a transport for whoever made this offer, who is to have that role; returns it and the answer. */
async function meet(control, room, sdp, role) {
  const made = await control.ask('POST', `/rooms/${room}/webrtc-transports`, { tcp: false });
  const value = said(sdp, /^a=fingerprint:sha-256 (\S+)/im);
  await control.ask('PUT', `/transports/${made.id}/dtls`, { role, fingerprints: [{ algorithm: 'sha-256', value }] });
  const { iceParameters, iceCandidates, dtlsLocalParameters } = made.webrtc;
  const mid = said(sdp, /^a=mid:(\S+)/m);
  const opus = said(sdp, /^a=rtpmap:(\d+) opus\/48000\/2/m);
  const own = dtlsLocalParameters.fingerprints.find(({ algorithm }) => algorithm === 'sha-256');
  const answer = [
    'v=0',
    'o=- 1 1 IN IP4 0.0.0.0',
    's=-',
    't=0 0',
    'a=ice-lite',
    `a=group:BUNDLE ${mid}`,
    `m=audio 7 UDP/TLS/RTP/SAVPF ${opus}`,
    'c=IN IP4 0.0.0.0',
    `a=mid:${mid}`,
    'a=sendonly',
    'a=rtcp-mux',
    `a=rtpmap:${opus} opus/48000/2`,
    `a=ice-ufrag:${iceParameters.usernameFragment}`,
    `a=ice-pwd:${iceParameters.password}`,
    `a=fingerprint:sha-256 ${own.value}`,
    `a=setup:${role === 'client' ? 'passive' : 'active'}`,
    ...iceCandidates.map(
      ({ foundation, protocol, priority, ip, port, type }) =>
        `a=candidate:${foundation} 1 ${protocol} ${priority} ${ip} ${port} typ ${type}`,
    ),
    'a=end-of-candidates',
    '',
  ].join('\r\n');
  return { id: made.id, answer };
}

/** So many handshakes of a browser, half of them in each role. */
async function shakeHands(browserName, { stage, control, step }) {
  lose();
  const room = (await control.ask('POST', '/rooms', {})).id;
  const context = await (await stage.browsers(browserName)).newContext();
  try {
    const page = await context.newPage();
    const ended = [];
    while (ended.length < HANDSHAKES) {
      const role = ended.length % (2 * BATCH) === 0 ? 'client' : 'server';
      const offers = await page.evaluate(offer, BATCH);
      const met = await Promise.all(offers.map((sdp) => meet(control, room, sdp, role)));
      const how = await page.evaluate(connect, [met.map(({ answer }) => answer), HANDSHAKE_MS]);
      ended.push(...how.map((one, index) => ({ ...one, role, transport: met[index].id })));
    }
    const connected = () => ended.filter(({ state, server }) => state === 'connected' && server?.dtls === 'connected');
    const look = async () => {
      for (const one of ended.filter(({ server }) => server?.dtls !== 'connected')) {
        const { webrtc } = await control.ask('GET', `/transports/${one.transport}`);
        one.server = { ice: webrtc.iceState, dtls: webrtc.dtlsState, failure: webrtc.failure };
      }
      return connected().length === ended.filter(({ state }) => state === 'connected').length;
    };
    // Who sends the last flight is through before it arrives; whoever still is not is told of below.
    await until('the server to be connected, too', look, HANDSHAKE_MS).catch((error) => step(error.message));
    // Before they are closed, for that is said by DTLS too.
    const { there, there_lost, back, back_lost } = counted();
    for (const role of ['client', 'server']) {
      const times = connected()
        .filter((one) => one.role === role)
        .map(({ ms }) => ms);
      times.sort((one, other) => one - other);
      const [median, slowest] = [times[times.length >> 1], times.at(-1)].map((ms) => (ms / 1000).toFixed(1));
      step(`${browserName} as ${role}: ${times.length} of ${HANDSHAKES / 2}, half within ${median} s, slowest ${slowest} s`);
    }
    step(
      `${browserName}: ${connected().length} of ${HANDSHAKES}; lost ${there_lost} of ${there} there, ${back_lost} of ${back} back`,
    );
    const others = ended.filter((one) => !connected().includes(one));
    check(others.length === 0, `not connected: ${JSON.stringify(others)}`);
    check(there_lost + back_lost > 100, 'too little was lost to try anything');
    for (const [lost, all] of [
      [there_lost, there],
      [back_lost, back],
    ]) {
      check(lost > (all * LOST_PERCENT) / 200, `only ${lost} of ${all} were lost`);
    }
    await page.evaluate(() => window.connections.forEach((connection) => connection.close()));
  } finally {
    await context.close();
    await control.ask('DELETE', `/rooms/${room}`);
  }
}

export async function lossesInHandshakesOfChromium(play) {
  await shakeHands('chromium', play);
}

export async function lossesInHandshakesOfFirefox(play) {
  await shakeHands('firefox', play);
}
