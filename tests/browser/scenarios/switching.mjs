// The same way with something else on it: another track, another profile, other ICE credentials.

import { check, until } from '../stage.mjs';

export async function replaceTrack({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana', { send: 'none' }), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await ana.seesColours('Ben', 'Ben');
  for (const name of ['Dora', 'Ben']) {
    await ben.do('replaceTrack', 'video', name);
    await ana.seesColours('Ben', name);
    await ana.perceives('Ben', 'video');
    step(`the picture of ${name}`);
  }
  await ben.do('replaceTrack', 'audio', 'Dora');
  await ana.perceives('Ben', 'audio');
  step('another sound');
}

export async function restartIce({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await ben.perceives('Ana', 'video');
  for (let round = 1; round <= 2; round += 1) {
    const before = [await ana.do('iceUfrag', 'send'), await ana.do('iceUfrag', 'recv')];
    await ana.do('restartIce');
    await until('new credentials', async () => {
      const now = [await ana.do('iceUfrag', 'send'), await ana.do('iceUfrag', 'recv')];
      return now.every(({ local, remote }, at) => local !== before[at].local && remote !== before[at].remote);
    });
    await ana.when('connected', ({ media }) => media.send === 'connected' && media.recv === 'connected');
    for (const [one, other] of [
      [ana, 'Ben'],
      [ben, 'Ana'],
    ]) {
      await one.perceives(other, 'video', 20);
      await one.perceives(other, 'audio');
    }
    step(`round ${round}: other credentials, the same media`);
  }
}

/** Three streams of one picture, made as mediasoup-client 2.x does, and a receiver that chooses among them. */
export async function profiles({ stage, control, room, step }) {
  const [ana, ben] = [await stage.enter('Ana', { send: 'none' }), await stage.enter('Ben', { simulcast: true })];
  await ana.perceives('Ben', 'video');
  const { id } = await ana.consumerOf('Ben', 'video');
  const { id: producer } = await control.producer(room, 'Ben', 'video');
  const full = await control.ask('GET', `/producers/${producer}`);
  const { encodings } = full.rtpParameters;
  check(encodings.length === 3, `${encodings.length} encodings`);
  step('three encodings announced');

  // They begin one after the other, as the sender finds out how much the network takes.
  await until('all three streams', async () => {
    const { send } = await ben.stats();
    return send.video.streams.filter(({ framesEncoded }) => framesEncoded > 10).length === 3;
  }, 120_000);
  step('three streams sent');

  const effective = async () =>
    (await ana.state()).peers[0].consumers.find((consumer) => consumer.id === id).effectiveProfile;
  for (const profile of ['high', 'low', 'medium', 'low', 'high', 'medium']) {
    await ana.do('prefer', id, profile);
    await until(`profile ${profile}`, async () => (await effective()) === profile, 120_000);
    await ana.perceives('Ben', 'video', 15);
    const { effectiveProfile } = await control.consumer(id);
    check(effectiveProfile === profile, `the server says ${effectiveProfile}`);
    const { ssrc } = await control.stream(id, 'inbound-rtp');
    const [encoding] = encodings.filter((one) => one.profile === profile);
    check(ssrc === encoding.ssrc, `${ssrc} is relayed, not ${JSON.stringify(encoding)}`);
    step(profile);
  }
  await ana.do('prefer', id, 'default');
  await until('the best again', async () => (await effective()) === 'high', 120_000);
  await ana.perceives('Ben', 'video', 15);
  await ana.seesColours('Ben', 'Ben');
  step('default is the best');
}
