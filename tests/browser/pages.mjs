// The pages /watch and /publish in Chromium, as on a phone: somebody waits, somebody publishes three layers of a test picture, the one who
// watches sees them, chooses the lowest, and waits again when the publisher has stopped. Its last line of output is JSON with `done`.
//
//     node pages.mjs CHROMIUM ADDRESS
//
// ADDRESS is the demo page's, e.g. 127.0.0.1:4080.

import { chromium, devices } from 'playwright-core';

const [executablePath, address] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox',
    '--disable-dev-shm-usage',
    '--allow-loopback-in-peer-connection',
    '--autoplay-policy=no-user-gesture-required',
  ],
});
const context = await browser.newContext(devices['Pixel 7']);
context.setDefaultTimeout(30_000);
const problems = [];

async function open(path) {
  const page = await context.newPage();
  page.on('pageerror', (error) => problems.push(`${path}: ${error.message}`));
  await page.goto(`http://${address}${path}`);
  return page;
}

const state = (page, text) =>
  page.waitForFunction((wanted) => document.getElementById('state').textContent === wanted, text);

const watcher = await open('/watch?room=pages');
await state(watcher, 'waiting for somebody to publish');
const publisher = await open('/publish?room=pages&source=test');
await publisher.click('#go');
await state(publisher, 'on air');
await state(watcher, 'live');
await watcher.waitForFunction(() => document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames > 30);
await watcher.waitForFunction(() => document.querySelectorAll('#layer option').length === 4);
await watcher.selectOption('#layer', 'q');
await watcher.waitForFunction(() => document.getElementById('video').videoWidth === 160);
const numbers = await watcher.textContent('#numbers');
const viewers = await watcher.textContent('#viewers');
// Everything must fit beside each other: people hold phones upright.
const beyond = await Promise.all(
  [watcher, publisher].map((page) =>
    page.evaluate(() => {
      const inside = (element, box) => element.getBoundingClientRect().right <= box.getBoundingClientRect().right + 1;
      const fields = [...document.querySelectorAll('label > *')].filter((field) => !inside(field, field.parentElement));
      const parts = [...document.querySelectorAll('main > *')].filter((part) => !inside(part, document.body));
      return [...fields, ...parts].map(({ id, name }) => id || name);
    }),
  ),
);
await publisher.click('#go');
await state(publisher, 'ended');
await state(watcher, 'waiting for somebody to publish');
say({ done: true, numbers, viewers, beyond, problems });
await browser.close();
