// The worker of a room is killed, time and again, while people in both browsers talk in it: nothing of what they have agreed on
// changes, and the pictures go on. Each scenario has a server of its own, which takes media one way only; played only by name.

import { check, pause, until } from '../stage.mjs';

const DEATHS = 10;

/** So many pictures must follow each death. */
const PICTURES = 12;

/** A worker that has not served for a second is replaced later and later; so deaths are a second or two apart. */
const APART_MS = 1_200;

/** What nothing may be said of, from the first death on: whatever clients agreed on, and whatever was closed. */
const CHANGES = [
  'iceStateChanged',
  'dtlsStateChanged',
  'checksRefused',
  'transportOpened',
  'transportClosed',
  'producerClosed',
  'consumerClosed',
  'peerClosed',
  'roomClosed',
];

/**
 * A browser that has several paths to a transport prefers the one whose checks are answered soonest: one check that has waited for the next
 * process may move it. More often than this that is no chance.
 */
const MOVES_MAX = 4;

const isMove = ({ type }) => type === 'iceSelectedTupleChanged';

/** In the page: from now on, keeps what states its connections come to. */
function watch() {
  window.states = [];
  const from = performance.now();
  for (const direction of ['send', 'recv']) {
    const connection = window.__weir.call.peerConnection(direction);
    const [{ transport }] = direction === 'send' ? connection.getSenders() : connection.getReceivers();
    const keep = (target, event, look) =>
      target?.addEventListener(event, () => window.states.push(`${Math.round(performance.now() - from)} ms: ${direction} ${look()}`));
    keep(connection, 'iceconnectionstatechange', () => `ICE ${connection.iceConnectionState}`);
    keep(connection, 'negotiationneeded', () => 'negotiation needed');
    keep(transport, 'statechange', () => `DTLS ${transport.state}`);
    keep(transport?.iceTransport, 'selectedcandidatepairchange', () => 'another pair');
  }
}

/** In the page: what its connections have agreed on, and by which way they go. */
async function agreed() {
  const of = async (direction) => {
    const connection = window.__weir.call.peerConnection(direction);
    const reports = await connection.getStats();
    const all = [...reports.values()];
    const transport = all.find(({ type }) => type === 'transport');
    const pairs = all.filter(({ type }) => type === 'candidate-pair');
    const isSelected = ({ id, selected }) => (transport?.selectedCandidatePairId ? id === transport.selectedCandidatePairId : selected);
    const pair = pairs.find(isSelected);
    const [local, remote] = [reports.get(pair?.localCandidateId), reports.get(pair?.remoteCandidateId)];
    const [{ transport: dtls }] = direction === 'send' ? connection.getSenders() : connection.getReceivers();
    return {
      dtls: dtls.state,
      protocol: local?.protocol,
      pair: pair && [pair.id, local?.protocol, remote?.protocol, remote?.address, remote?.port].join(' '),
      pairChanges: transport?.selectedCandidatePairChanges,
      certificates: all.flatMap(({ type, fingerprint }) => (type === 'certificate' ? [fingerprint] : [])).sort(),
      transport: transport && [transport.dtlsState, transport.dtlsRole, transport.srtpCipher, transport.localCertificateId, transport.remoteCertificateId],
      ufrag: window.__weir.iceUfrag(direction),
    };
  };
  return { send: await of('send'), recv: await of('recv') };
}

/** The worker of the room, and its process. */
async function workerOf(control, room) {
  const { worker } = await control.ask('GET', `/rooms/${await control.room(room)}`);
  return control.ask('GET', `/workers/${worker}`);
}

/** What has happened behind a position, up to now. */
async function eventsAfter(control, position) {
  const items = [];
  for (;;) {
    const part = await control.ask('GET', `/events/recent?after=${position}`);
    items.push(...part.items);
    position = part.position;
    if (!part.more) {
      return { items, position };
    }
  }
}

/** Everybody sees everybody else, who has the same consumers as before. */
async function seeEachOther(people, consumers) {
  await Promise.all(
    people.map(async ([one, other], index) => {
      const before = await one.received(other.name, 'video');
      const { id } = await one.consumerOf(other.name, 'video');
      check(consumers[index] === undefined || consumers[index] === id, `${one.name} has another consumer`);
      consumers[index] = id;
      await until(`${one.name} to see ${other.name}`, async () => {
        const { frames } = await one.received(other.name, 'video');
        return frames >= before.frames + PICTURES;
      });
    }),
  );
}

async function outlive({ stage, control, room, step }, protocol) {
  const [fox, ana] = await Promise.all([
    stage.enter('Fox', { browser: 'firefox', fake: false, send: 'video' }),
    stage.enter('Ana', { send: 'video' }),
  ]);
  const people = [
    [ana, fox],
    [fox, ana],
  ];
  const consumers = [];
  await seeEachOther(people, consumers);
  const look = () => Promise.all(people.map(([one]) => one.page.evaluate(agreed)));
  // A browser may have found a better pair since; from here on, it is to stay where it is.
  const before = await look();
  for (const of of before.flatMap(({ send, recv }) => [send, recv])) {
    check(of.dtls === 'connected' && of.protocol === protocol, `not by ${protocol}: ${JSON.stringify(of)}`);
  }
  const tuples = async () => JSON.stringify((await control.transports(room)).map(({ webrtc }) => webrtc.iceSelectedTuple));
  const tuplesBefore = await tuples();
  await Promise.all(people.map(([one]) => one.page.evaluate(watch)));
  step(`by ${protocol}: both see each other`);
  let { position } = await eventsAfter(control, '0');
  const gaps = [];
  let moves = 0;
  for (let death = 1; death <= DEATHS; death += 1) {
    const { id, pid } = await workerOf(control, room);
    process.kill(pid, 'SIGKILL');
    const restored = await until(`worker ${id} to be restored`, async () => {
      const after = await eventsAfter(control, position);
      position = after.position;
      const changes = after.items.filter(({ type }) => CHANGES.includes(type));
      check(changes.length === 0, `death ${death}: ${JSON.stringify(changes)}`);
      moves += after.items.filter(isMove).length;
      check(moves <= MOVES_MAX, `death ${death}: ${JSON.stringify(after.items.filter(isMove))} of ${tuplesBefore}`);
      return after.items.find(({ type, worker }) => type === 'workerRestored' && worker === id);
    });
    check(restored.lost === 0, `death ${death}: ${JSON.stringify(restored)}`);
    gaps.push(Math.round(restored.gapMs));
    await Promise.all([seeEachOther(people, consumers), pause(APART_MS)]);
  }
  step(`${DEATHS} deaths, restored after ${gaps.join(', ')} ms, and pictures after each`);
  const { items } = await eventsAfter(control, position);
  const changes = items.filter(({ type }) => CHANGES.includes(type));
  check(changes.length === 0, JSON.stringify(changes));
  const after = await look();
  moves += items.filter(isMove).length;
  const withoutPair = ({ pair, pairChanges, ...rest }) => rest;
  const lasting = (of) => JSON.stringify(moves > 0 ? of.map(({ send, recv }) => [send, recv].map(withoutPair)) : of);
  const states = await Promise.all(people.map(([one]) => one.page.evaluate(() => window.states)));
  const unlike = () => `before ${JSON.stringify(before)}, after ${JSON.stringify(after)}, by way of ${JSON.stringify(states)}`;
  check(lasting(after) === lasting(before), unlike());
  check(moves > 0 || (await tuples()) === tuplesBefore, `the tuples were ${tuplesBefore}`);
  // A browser may have waited for a while, on a busy machine: of that comes nothing more than this.
  const others = states
    .flat()
    .filter((state) => !/ICE (disconnected|connected|completed)$/.test(state) && !(moves > 0 && /another pair$/.test(state)));
  check(others.length === 0, `states changed: ${JSON.stringify(states)}`);
  for (const [one] of people) {
    const { connection, resumed } = await one.state();
    check(connection === 'open' && resumed === 0, `${one.name} has lost its connection to the server`);
  }
  step(`and nothing has changed but ${moves} paths; ${states.flat().length} times ICE was out of touch or back`);
}

export const deathsOverUdp = (play) => outlive(play, 'udp');
deathsOverUdp.server = ['--rtc-tcp', 'false'];

export const deathsOverTcp = (play) => outlive(play, 'tcp');
deathsOverTcp.server = ['--rtc-udp', 'false'];

export const deathsOverOnePort = (play) => outlive(play, 'udp');
deathsOverOnePort.server = ['--webrtc-port', '21000', '--rtc-tcp', 'false'];
