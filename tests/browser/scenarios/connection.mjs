// The WebSocket goes, the media stays.

import { check, until } from '../stage.mjs';

/** The page loses its socket and comes back; nothing of the media is missing. */
export async function droppedSocket({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await ben.perceives('Ana', 'video');
  const { id: before } = await ana.consumerOf('Ben', 'video');
  for (let round = 1; round <= 3; round += 1) {
    await ana.do('dropSocket');
    await ana.when('back', ({ connection, resumed }) => connection === 'open' && resumed === round);
    await ana.perceives('Ben', 'video');
    await ben.perceives('Ana', 'video');
    const { id } = await ana.consumerOf('Ben', 'video');
    check(id === before, 'the consumer is another one');
    step(`round ${round}`);
  }
  // It still speaks for its peer.
  await ana.do('pauseConsumer', before);
  await ana.perceivesNothing('Ben', 'video', ana.clockOf('Ben', 'audio'));
  step('and is listened to');
}

/** The network is gone for a while: media goes on, what was missed is told, what was wished is done. */
export async function cutNetwork({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await ben.perceives('Ana', 'video');
  ana.link.cut();
  await ana.when('lost', ({ connection }) => connection === 'lost');
  await ana.perceives('Ben', 'video', 20);
  await ana.perceives('Ben', 'audio');
  await ben.perceives('Ana', 'video', 20);
  const present = await ben.state();
  check(present.peers.length === 1, 'Ana counts as gone');
  step('media goes on');

  // Somebody else does something, and so does Ana.
  await ben.do('pauseProducer', 'audio');
  await ana.do('pauseProducer', 'video');
  const cleo = await stage.enter('Cleo', { send: 'video' });
  await ben.perceives('Cleo', 'video');
  const unaware = await ana.state();
  check(unaware.peers.length === 1, 'Ana knows of what she cannot know');
  ana.link.mend();
  await ana.when('back', ({ connection, resumed }) => connection === 'open' && resumed === 1);
  await ana.when('the pause', ({ peers }) =>
    peers.find(({ name }) => name === 'Ben').consumers.find(({ kind }) => kind === 'audio').remotelyPaused);
  await ana.perceives('Cleo', 'video');
  step('what was missed is told');
  await ben.when('the pause', ({ peers }) =>
    peers.find(({ name }) => name === 'Ana').consumers.find(({ kind }) => kind === 'video').remotelyPaused);
  await cleo.when('two others', ({ peers }) => peers.length === 2);
  step('what was wished is done');
}

/** Longer than the server waits: the page joins anew by itself. */
export async function cutForTooLong({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  ana.link.cut();
  await ben.when('alone', ({ peers }) => peers.length === 0);
  step('gone after the grace period');
  ana.link.mend();
  await until('Ana to be back', async () => {
    const { peers } = await ben.state();
    return peers.length === 1;
  });
  await ben.perceives('Ana', 'video');
  await ben.perceives('Ana', 'audio');
  await ana.perceives('Ben', 'video');
  step('back as somebody new, with everything');
}
