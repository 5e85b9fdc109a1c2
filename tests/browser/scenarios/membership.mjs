// Coming, going, and being gone.

import { check, until } from '../stage.mjs';

const withoutPeers = ({ peers }) => peers.length === 0;

export async function leavingAndComingBack({ stage, step }) {
  const ana = await stage.enter('Ana');
  for (let round = 1; round <= 3; round += 1) {
    const ben = await stage.enter('Ben');
    await ana.perceives('Ben', 'video');
    await ben.perceives('Ana', 'video');
    await ben.do('leave');
    await ana.when('alone', withoutPeers, 10_000);
    await ben.leave();
    step(`round ${round}`);
  }
}

/** Closing a tab is leaving; there is nothing to wait for. */
export async function closedTab({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await ben.page.goto('about:blank');
  await ana.when('alone', withoutPeers, 10_000);
  step('gone at once');
}

/** A tab that dies says nothing, but its browser does: it closes the connection with 1001. */
export async function killedTab({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  const session = await ben.context.newCDPSession(ben.page);
  const crashed = new Promise((resolve) => ben.page.once('crash', resolve));
  // It never answers.
  session.send('Page.crash').catch(() => {});
  await crashed;
  await ana.when('alone', withoutPeers, 10_000);
  step('gone at once');
  const again = await stage.enter('Ben');
  await ana.perceives(again.name, 'video');
  step('and back under the same name');
}

export async function nameTaken({ stage, step }) {
  await stage.enter('Ana', { send: 'none' });
  const other = await stage.enter('Eva', { send: 'none' });
  await other.do('leave');
  const { page } = other;
  await page.fill('#name', 'Ana');
  await page.click('#join');
  await page.waitForSelector('#door-error:not([hidden])');
  check(/Choose another/.test(await page.textContent('#door-error')), 'the page does not say what to do');
  step('told at the door');
  await page.fill('#name', 'Eva');
  await page.click('#join');
  await until('the room', async () => (await other.state()).state === 'joined');
}
