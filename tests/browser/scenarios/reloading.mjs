// Pages that begin anew: reloaded, with and without a goodbye of their own, after a crash, and after a network that took the
// goodbye with it.

import { check } from '../stage.mjs';

/** Ben's page is there again, and Ana sees one Ben, with picture and sound, who is not the one before. */
async function isBack(ana, ben, before) {
  await ben.when('in the room', ({ state }) => state === 'joined');
  await ben.when('sending', ({ producers }) => producers.audio && producers.video);
  const { peers } = await ana.when('another Ben', ({ peers }) =>
    peers.some(({ name, consumers }) => name === 'Ben' && consumers.some(({ kind, id }) => kind === 'video' && id !== before)));
  check(peers.length === 1, `Ana sees ${peers.length} others`);
  await ana.perceives('Ben', 'video');
  await ana.perceives('Ben', 'audio');
  await ben.perceives('Ana', 'video');
  return (await ana.consumerOf('Ben', 'video')).id;
}

/** The browser says 1001 for a page that is left; this page says goodbye itself, too, unless it is kept from it. */
export async function reloadedPage({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  let { id } = await ana.consumerOf('Ben', 'video');
  for (let round = 1; round <= 4; round += 1) {
    const isMute = round % 2 === 0;
    if (isMute) {
      // As an application that knows nothing of it.
      await ben.page.evaluate(() =>
        window.addEventListener('pagehide', (event) => event.stopImmediatePropagation(), { capture: true }));
    }
    // What the address bar shows invites others, and does not say who one is.
    await ben.page.evaluate((address) => history.replaceState(null, '', address), ben.address);
    await ben.page.reload();
    id = await isBack(ana, ben, id);
    step(isMute ? 'reloaded without a word' : 'reloaded');
  }
}

/** A page that crashes: its browser says 1001 for it, and the next page is in at once. */
export async function crashedPage({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  const { id } = await ana.consumerOf('Ben', 'video');
  const crashed = ben.page;
  await Promise.all([crashed.waitForEvent('crash'), crashed.goto('chrome://crash').catch(() => {})]);
  ben.page = await ben.context.newPage();
  await ben.page.goto(ben.address);
  await isBack(ana, ben, id);
  step('back after a crash');
}

/**
 * The connection is reset, and the page is closed while there is no way to say so. The server waits for Ben to come back. His
 * browser still has the cookie, so its next page has the name at once.
 */
export async function resetPage({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  let { id } = await ana.consumerOf('Ben', 'video');
  for (let round = 1; round <= 2; round += 1) {
    ben.link.cut();
    await ben.when('lost', ({ connection }) => connection === 'lost');
    await ben.page.close();
    ben.link.mend();
    const { peers } = await ana.state();
    check(peers.length === 1, 'Ben counts as gone, and there is nothing to take over');
    ben.page = await ben.context.newPage();
    // The page asks once. Were the name still taken, it would say so and stay at the door.
    await ben.page.goto(ben.address);
    id = await isBack(ana, ben, id);
    step(`round ${round}`);
  }
}

/** Somebody else, in a browser of their own, does not get a name that is in use. */
export async function takenName({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  const { id } = await ana.consumerOf('Ben', 'video');
  const stranger = await ana.page.context().browser().newContext();
  const page = await stranger.newPage();
  await page.goto(ben.address);
  await page.getByText('Somebody of this name is in the room').waitFor();
  await stranger.close();
  step('refused');
  check((await ana.consumerOf('Ben', 'video')).id === id, 'Ben is another one');
  await ana.perceives('Ben', 'video');
}
