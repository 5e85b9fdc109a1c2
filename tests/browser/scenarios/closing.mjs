// The server ends something, and the page says so.

import { check } from '../stage.mjs';

export async function closedProducer({ stage, control, room, step }) {
  const [ana, ben] = [await stage.enter('Ana', { send: 'none' }), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  const { id } = await control.producer(room, 'Ben', 'video');
  await control.ask('DELETE', `/producers/${id}`, { appData: 'no pictures here' });
  await ben.when('no picture', ({ producers }) => !producers.video);
  await ana.when('no picture', ({ peers }) => peers[0].consumers.every(({ kind }) => kind === 'audio'));
  await ana.perceives('Ben', 'audio');
  step('the sound goes on');
  await ben.do('send', 'video');
  await ana.perceives('Ben', 'video');
  step('and the picture can be sent anew');
}

/** Somebody is taken out, and told why; the others stay. */
export async function closedPeer({ stage, control, room, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  const path = `/rooms/${await control.room(room)}/peers/Ben`;
  await control.ask('DELETE', path, { appData: { reason: 'it is late' } });
  const { notice } = await ben.when('told', (state) => state.notice);
  check(/your place in it: it is late/.test(notice), `it says: ${notice}`);
  await ana.when('alone', ({ peers, state }) => state === 'joined' && peers.length === 0);
  step('told why');
  await ben.page.click('#notice-button');
  await ana.perceives('Ben', 'video');
  step('and back again');
}

export async function closedRoom({ stage, control, room, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await control.closeRoom(room);
  for (const person of [ana, ben]) {
    const { notice, pill } = await person.when('told', (state) => state.notice);
    check(/^The server has closed this room/.test(notice), `it says: ${notice}`);
    check(pill === 'Disconnected', `it says: ${pill}`);
  }
  step('both are told');
  await ana.page.click('#notice-button');
  await ben.page.click('#notice-button');
  await ana.perceives('Ben', 'video');
  await ben.perceives('Ana', 'audio');
  step('and can join again');
}

/** The last one: there is no server afterwards. */
export async function closedServer({ stage, step, server }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  server.terminate();
  for (const person of [ana, ben]) {
    const { notice, pill } = await person.when('told', (state) => state.notice);
    check(/^The server has closed this room/.test(notice), `it says: ${notice}`);
    check(pill === 'Disconnected', `it says: ${pill}`);
  }
  step('both are told');
  const { code, signal } = await server.ended;
  check(code === 0, `the server ended with ${code ?? signal}`);
  step('and it ends in good order');
}
