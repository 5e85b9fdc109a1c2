// Firefox, which sends simulcast by RID and negotiates in other words. It sends the picture and the sound of devices that it
// makes up itself: without a sound card it lets pages make no sound.

import { check, until } from '../stage.mjs';

const FIREFOX = { browser: 'firefox', fake: false };

export async function firefoxAndChromium({ stage, step }) {
  const fox = await stage.enter('Fox', FIREFOX);
  const ana = await stage.enter('Ana');
  for (const [one, other] of [
    [ana, fox],
    [fox, ana],
  ]) {
    await one.perceives(other.name, 'video', 20);
    await one.perceives(other.name, 'audio');
    step(`${one.name} sees and hears ${other.name}`);
  }
  await fox.seesColours('Ana', 'Ana');
  const { id } = await fox.consumerOf('Ana', 'video');
  await fox.do('pauseConsumer', id);
  await fox.perceivesNothing('Ana', 'video', fox.clockOf('Ana', 'audio'));
  await fox.do('resumeConsumer', id);
  await fox.perceives('Ana', 'video');
  await fox.do('pauseProducer', 'video');
  await ana.perceivesNothing('Fox', 'video', ana.clockOf('Fox', 'audio'));
  await fox.do('resumeProducer', 'video');
  await ana.perceives('Fox', 'video');
  step('pauses and resumes');
}

export async function firefoxOrders({ stage, step }) {
  const ana = await stage.enter('Ana', { send: 'none' });
  for (const order of [
    ['video', 'audio'],
    ['audio', 'video'],
  ]) {
    const fox = await stage.enter(`Fox-${order[0]}`, { ...FIREFOX, send: 'none' });
    for (const kind of order) {
      await fox.do('send', kind);
      await ana.perceives(fox.name, kind);
    }
    step(order.join(', then '));
    await fox.leave();
  }
}

export async function firefoxSimulcast({ stage, control, room, step }) {
  const fox = await stage.enter('Fox', { ...FIREFOX, simulcast: true });
  const ana = await stage.enter('Ana', { send: 'none' });
  await ana.perceives('Fox', 'video');
  const { id: producer } = await control.producer(room, 'Fox', 'video');
  const { rtpParameters } = await control.ask('GET', `/producers/${producer}`);
  check(rtpParameters.encodings.length > 1, `${rtpParameters.encodings.length} encodings`);
  step(`${rtpParameters.encodings.length} encodings announced`);
  const { id } = await ana.consumerOf('Fox', 'video');
  const ssrcs = {};
  for (const profile of ['low', 'high', 'medium', 'low']) {
    await ana.do('prefer', id, profile);
    await until(`profile ${profile}`, async () => (await control.consumer(id)).effectiveProfile === profile, 120_000);
    await ana.perceives('Fox', 'video', 15);
    const { ssrc } = await control.stream(id, 'inbound-rtp');
    ssrcs[profile] ??= ssrc;
    check(ssrcs[profile] === ssrc, `${profile} was ${ssrcs[profile]} and is ${ssrc}`);
    step(`${profile}: stream ${ssrc}`);
  }
  check(new Set(Object.values(ssrcs)).size === 3, 'profiles are not streams of their own');
}
