// People see and hear each other, whatever they begin with.

import { check, until } from '../stage.mjs';

export async function twoSeeAndHear({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  for (const [one, other] of [
    [ana, ben],
    [ben, ana],
  ]) {
    await one.perceives(other.name, 'video', 20);
    await one.perceives(other.name, 'audio');
    await one.seesColours(other.name, other.name);
    step(`${one.name} sees and hears ${other.name}`);
    await one.when('a level', ({ levels }) => levels[other.name] > 0.01);
    await one.when('a speaker', ({ speaker }) => speaker === other.name);
    step(`${one.name} is told by the packets how loud ${other.name} is`);
    const { media } = await one.state();
    check(media.send === 'connected' && media.recv === 'connected', `media is ${JSON.stringify(media)}`);
  }
}

export async function threeSeeAndHear({ stage, step }) {
  const people = [];
  for (const name of ['Ana', 'Ben', 'Cleo']) {
    people.push(await stage.enter(name));
  }
  for (const one of people) {
    for (const other of people.filter((other) => other !== one)) {
      await one.perceives(other.name, 'video');
      await one.perceives(other.name, 'audio');
      await one.seesColours(other.name, other.name);
    }
    step(`${one.name} sees and hears both`);
  }
}

/** With the camera and the microphone of the browser, which are made up but go the whole way. */
export async function devices({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana', { fake: false }), await stage.enter('Ben', { fake: false })];
  await ana.perceives('Ben', 'video');
  await ana.perceives('Ben', 'audio');
  await ben.perceives('Ana', 'video');
  await ben.perceives('Ana', 'audio');
  step('both ways');
}

const ORDERS = [['audio', 'video'], ['video', 'audio'], ['video'], ['audio']];

/** Audio first, video first, one alone, the other added later. */
export async function ordersOfProducing({ stage, step }) {
  const ana = await stage.enter('Ana', { send: 'none' });
  for (const [number, order] of ORDERS.entries()) {
    const ben = await stage.enter(`Ben${number}`, { send: 'none' });
    for (const kind of order) {
      await ben.do('send', kind);
      await ben.when(`sending ${kind}`, ({ producers }) => producers[kind]);
    }
    for (const kind of order) {
      await ana.perceives(ben.name, kind);
    }
    step(order.join(', then '));
    if (order.length === 1) {
      const [other] = ['audio', 'video'].filter((kind) => kind !== order[0]);
      await ana.perceives(ben.name, order[0]);
      await ben.do('send', other);
      await ana.perceives(ben.name, other);
      await ana.perceives(ben.name, order[0]);
      step(`${order[0]}, and much later ${other}`);
    }
    await ben.leave();
  }
}

/** What is sent can be closed and sent anew, over the same connections. */
export async function producingAnew({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana', { send: 'none' }), await stage.enter('Ben')];
  for (const kind of ['video', 'audio', 'video']) {
    await ana.perceives('Ben', kind);
    const { id } = await ana.consumerOf('Ben', kind);
    await ben.do('closeProducer', kind);
    await until('the consumer to be closed', async () => {
      const events = await ana.page.evaluate(() => window.__weir.events);
      return events.some((event) => event.what === 'consumerClosed' && event.id === id);
    });
    await ben.do('send', kind);
    await ana.perceives('Ben', kind);
    step(`${kind} closed and sent anew`);
  }
}
