// What the page shows, and how it is used.

import { mkdir } from 'node:fs/promises';

import { check, until } from '../stage.mjs';

export async function numbers({ stage, step }) {
  const [ana, ben] = [await stage.enter('Ana'), await stage.enter('Ben')];
  await ana.perceives('Ben', 'video');
  await ana.page.click('#tool-statistics');
  const shown = (name) => ana.page.textContent(`[data-peer="${name}"] .numbers`);
  await until('numbers of what is received', async () => {
    const text = await shown('Ben');
    return /picture +[\d.]+ [kM]bit\/s · [\d.]+ % lost/.test(text) && /640×360@\d+/.test(text) && /RTT +[\d.]+ ms/.test(text);
  });
  await until("the server's numbers", async () => /server +[\d.]+ [kM]bit\/s/.test(await shown('Ben')));
  await until('numbers of what is sent', async () => /picture +[\d.]+ [kM]bit\/s/.test(await shown('Ana')));
  step((await shown('Ben')).replaceAll('\n', ' | '));
  await ana.page.click('#tool-statistics');
  check(await ana.page.isHidden('[data-peer="Ben"] .numbers'), 'they do not go away');
  await ben.leave();
}

/** All of it without a mouse: in by Enter, everything by Tab, the shortcuts, the way out. */
export async function keyboard({ stage, step }) {
  const ben = await stage.enter('Ben', { simulcast: true });
  const ana = await stage.enter('Ana', { send: 'none' });
  await ana.do('leave');
  const { page } = ana;
  const press = (key) => page.keyboard.press(key);
  await page.focus('#name');
  await page.fill('#name', 'Ana');
  await press('Enter');
  await ana.when('in by Enter', ({ state }) => state === 'joined');
  await ana.perceives('Ben', 'video');
  step('in by Enter');

  const focused = () => page.evaluate(() => {
    const { activeElement: on } = document;
    const { outlineStyle } = getComputedStyle(on);
    return { name: on.ariaLabel ?? on.textContent.trim() ?? on.id, tag: on.tagName, outlined: outlineStyle !== 'none' };
  });
  const passed = [];
  for (let tabs = 0; tabs < 12; tabs += 1) {
    await press('Tab');
    const now = await focused();
    if (now.tag === 'BODY') {
      break;
    }
    check(now.outlined, `the focus on ${now.name} is not to be seen`);
    passed.push(now.name);
    if (now.name === 'Pause the picture of Ben') {
      await press('Space');
      await ana.when('paused', ({ peers }) => peers[0].consumers.some((one) => one.kind === 'video' && one.locallyPaused));
      await press('Space');
      await ana.when('resumed', ({ peers }) => peers[0].consumers.every((one) => !one.locallyPaused));
    }
    if (now.name === 'Quality of the picture of Ben') {
      await press('l');
      await ana.when('low', ({ peers }) => peers[0].consumers.some((one) => one.preferredProfile === 'low'));
    }
  }
  for (const wanted of ['Pause the sound of Ben', 'Pause the picture of Ben', 'Quality of the picture of Ben', 'Leave']) {
    check(passed.includes(wanted), `Tab does not come by ${wanted}: ${passed}`);
  }
  step(`Tab comes by ${passed.length} things`);

  await page.focus('#grid');
  await press('m');
  await ana.when('sound by m', ({ producers }) => producers.audio);
  await press('m');
  await ana.when('paused by m', ({ producers }) => producers.audio.locallyPaused);
  await press('v');
  await ana.when('picture by v', ({ producers }) => producers.video);
  await ben.perceives('Ana', 'video');
  step('m and v');
  await page.focus('#tool-leave');
  await press('Enter');
  await ana.when('left', ({ state }) => state === 'left');
}

/** Pictures of the page for people to look at, if they want any (`--shots`). */
export async function looks({ stage, step, shots }) {
  for (const [shape, viewport] of [
    ['desktop', { width: 1280, height: 800 }],
    ['phone', { width: 390, height: 844 }],
  ]) {
    for (const colorScheme of ['light', 'dark']) {
      const ana = await stage.enter('Ana', { viewport, colorScheme, simulcast: true });
      const ben = await stage.enter('Ben');
      await ana.perceives('Ben', 'video', 20);
      await ben.perceives('Ana', 'video', 20);
      await ana.page.click('#tool-statistics');
      await until('numbers', async () => /Mbit|kbit/.test(await ana.page.textContent('[data-peer="Ben"] .numbers')));
      const wide = await ana.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(wide <= 0, `${shape}: the page is ${wide} pixels too wide`);
      const small = await ana.page.evaluate(() =>
        [...document.querySelectorAll('.tools button:not([hidden]), .tool')]
          .map((button) => button.getBoundingClientRect())
          .filter(({ width, height }) => width < 40 || height < 40).length);
      check(small === 0, `${shape}: ${small} buttons are too small for a finger`);
      if (shots) {
        await mkdir(shots, { recursive: true });
        await ana.page.screenshot({ path: `${shots}/${shape}-${colorScheme}.png` });
      }
      step(`${shape}, ${colorScheme}`);
      await ana.leave();
      await ben.leave();
    }
  }
}

/** The browser holds the page to its policy: no script but its own, no other server. */
export async function policy({ stage, step }) {
  const ana = await stage.enter('Ana', { send: 'none' });
  check(ana.complaints.length === 0, `the page itself complains: ${ana.complaints}`);
  const refused = await ana.page.evaluate(async () => {
    const violated = (directive) =>
      new Promise((resolve) =>
        document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => {
          if (effectiveDirective.startsWith(directive)) {
            resolve(true);
          }
        }));
    const seen = Promise.all([violated('script-src'), violated('connect-src')]);
    const script = document.createElement('script');
    script.textContent = 'window.broken = true';
    document.body.append(script);
    // Another port is another origin.
    const asked = await fetch('http://127.0.0.1:9/').then(() => true, () => false);
    await seen;
    return { asked, broken: window.broken === true };
  });
  check(!refused.broken, 'a script in the page ran');
  check(!refused.asked, 'another server could be asked');
  step('held');
}
