// Whoever pauses, nothing arrives; only when nobody does, everything does.

import { check, until } from '../stage.mjs';

/** The four who can pause what Ana receives of Ben, and how each of them shows at both. */
function switches({ ana, ben, control, kind, producer, consumer }) {
  return {
    sender: { pause: () => ben.do('pauseProducer', kind), resume: () => ben.do('resumeProducer', kind) },
    producerAtServer: { pause: () => control.pauseProducer(producer), resume: () => control.resumeProducer(producer) },
    receiver: { pause: () => ana.do('pauseConsumer', consumer), resume: () => ana.do('resumeConsumer', consumer) },
    consumerAtServer: { pause: () => control.pauseConsumer(consumer), resume: () => control.resumeConsumer(consumer) },
  };
}

/** What pages must show for those who pause. */
async function shows(ana, ben, kind, pausing) {
  const has = (name) => pausing.includes(name);
  await ben.when(`paused by ${pausing}`, ({ producers }) => {
    const { locallyPaused, remotelyPaused } = producers[kind];
    return locallyPaused === has('sender') && remotelyPaused === has('producerAtServer');
  });
  const source = has('sender') || has('producerAtServer');
  await ana.when(`paused by ${pausing}`, ({ peers }) => {
    const consumer = peers.find(({ name }) => name === 'Ben')?.consumers.find((one) => one.kind === kind);
    const remote = source || has('consumerAtServer');
    return consumer?.locallyPaused === has('receiver') && consumer.remotelyPaused === remote;
  });
}

async function setUp({ stage, control, room }, kind) {
  const [ana, ben] = [await stage.enter('Ana', { send: 'none' }), await stage.enter('Ben')];
  const other = kind === 'video' ? 'audio' : 'video';
  await ana.perceives('Ben', kind);
  const { id: consumer } = await ana.consumerOf('Ben', kind);
  const { id: producer } = await control.producer(room, 'Ben', kind);
  const clock = ana.clockOf('Ben', other);
  return { ana, ben, clock, by: switches({ ana, ben, control, kind, producer, consumer }) };
}

/** All 15 ways in which some of the four pause: each stops it, and it goes on only when the last has resumed. */
export async function pictureInAllCombinations(play) {
  const { ana, ben, clock, by } = await setUp(play, 'video');
  const names = Object.keys(by);
  for (let set = 1; set < 1 << names.length; set += 1) {
    const some = names.filter((_, bit) => set & (1 << bit));
    for (const name of some) {
      await by[name].pause();
    }
    await shows(ana, ben, 'video', some);
    await ana.perceivesNothing('Ben', 'video', clock);
    const rest = [...some];
    while (rest.length > 1) {
      await by[rest.shift()].resume();
      await shows(ana, ben, 'video', rest);
      await ana.perceivesNothing('Ben', 'video', clock, 15);
    }
    await by[rest[0]].resume();
    await shows(ana, ben, 'video', []);
    await ana.perceives('Ben', 'video');
    play.step(some.join(' + '));
  }
}

export async function soundByEach(play) {
  const { ana, ben, clock, by } = await setUp(play, 'audio');
  for (const [name, one] of Object.entries(by)) {
    await one.pause();
    await shows(ana, ben, 'audio', [name]);
    await ana.perceivesNothing('Ben', 'audio', clock);
    await one.resume();
    await shows(ana, ben, 'audio', []);
    await ana.perceives('Ben', 'audio');
    play.step(name);
  }
}

/** A consumer's pause is one's own affair: others go on seeing. */
export async function oneReceiverPauses({ stage, step }) {
  const people = [];
  for (const [name, send] of [
    ['Ana', 'none'],
    ['Cleo', 'none'],
    ['Ben', 'audio,video'],
  ]) {
    people.push(await stage.enter(name, { send }));
  }
  const [ana, cleo] = people;
  await ana.perceives('Ben', 'video');
  await cleo.perceives('Ben', 'video');
  const { id } = await ana.consumerOf('Ben', 'video');
  await ana.do('pauseConsumer', id);
  await ana.perceivesNothing('Ben', 'video', cleo.clockOf('Ben', 'video'));
  await cleo.perceives('Ben', 'video', 20);
  step('the other goes on');
  await ana.do('resumeConsumer', id);
  await ana.perceives('Ben', 'video');
}

/** What is paused when somebody comes in, is paused for them, too. */
export async function pausedBeforeJoining({ stage, control, room, step }) {
  const ben = await stage.enter('Ben');
  // The client's library does not tell of a pause while the server still makes the producer.
  for (const kind of ['video', 'audio']) {
    await until(`the server to know Ben's ${kind}`, () => control.producer(room, 'Ben', kind).catch(() => null));
  }
  await ben.do('pauseProducer', 'video');
  await ben.when('paused', ({ producers }) => producers.video.locallyPaused);
  const { id } = await control.producer(room, 'Ben', 'audio');
  await control.pauseProducer(id);
  await ben.when('paused by the server', ({ producers }) => producers.audio.remotelyPaused);
  const ana = await stage.enter('Ana', { send: 'none' });
  for (const kind of ['video', 'audio']) {
    const consumer = await ana.consumerOf('Ben', kind);
    check(consumer.remotelyPaused, `${kind} is not shown as paused`);
  }
  step('the newcomer is told');
  await ben.do('resumeProducer', 'video');
  await ana.perceives('Ben', 'video');
  await control.resumeProducer(id);
  await ana.perceives('Ben', 'audio');
}
