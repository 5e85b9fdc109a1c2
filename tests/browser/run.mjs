// Starts `weir serve --demo-page`, plays scenarios on its page with real browsers, and prints one line of JSON for each.
//
//     node run.mjs --weir PATH [--media IP] [--media6 IP] [--only NAME,…] [--at-once N] [--shots DIR] [--verbose]
//         [--chromium PATH] [--firefox PATH]

import { parseArgs } from 'node:util';

import { chromium, firefox } from 'playwright-core';

import { Control } from './control.mjs';
import { serve } from './server.mjs';
import { Stage } from './stage.mjs';
import { scenarios } from './scenarios/index.mjs';

const { values } = parseArgs({
  options: {
    weir: { type: 'string' },
    media: { type: 'string', default: '127.0.0.1' },
    media6: { type: 'string', default: 'off' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
    firefox: { type: 'string', default: '/usr/bin/firefox-esr' },
    only: { type: 'string' },
    'at-once': { type: 'string', default: '1' },
    shots: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
if (!values.weir) {
  console.error('say --weir; README.md has the rest');
  process.exit(2);
}

/** Real media stack, made-up devices, no display, no network but loopback. */
const CHROMIUM_ARGUMENTS = [
  '--no-sandbox',
  '--disable-dev-shm-usage',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  '--allow-loopback-in-peer-connection',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--mute-audio',
];

/** The same for Firefox, the one that distributions ship: it is spoken to by WebDriver BiDi. */
const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // What it would load for H264 from elsewhere.
  'media.gmp-manager.updateEnabled': false,
};

/** More than any scenario takes; one that hangs fails. */
const SCENARIO_MS = 300_000;

// Firefox sends no media over loopback, whatever it is told; and to close some ways there must be others. Losses and deaths are
// played only when they are asked for by name, so that nothing else is.
const kind = values.media6 !== 'off' ? 'ways' : values.media === '127.0.0.1' ? 'loopback' : 'firefox';
const kindOf = (name) => /^(firefox|ways|losses|deaths)/.exec(name)?.[0] ?? 'loopback';
const only = values.only?.split(',') ?? scenarios.map(({ name }) => name).filter((name) => kindOf(name) === kind);
const unknown = only.filter((name) => !scenarios.some((scenario) => scenario.name === name));
if (unknown.length > 0) {
  console.error(`no scenario ${unknown.join(', ')}; there are: ${scenarios.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}

const say = (line) => console.log(JSON.stringify(line));

/** Started when they are first needed. */
const launched = {};
const launch = {
  chromium: () => chromium.launch({ executablePath: values.chromium, args: CHROMIUM_ARGUMENTS }),
  firefox: () =>
    firefox.launch({
      channel: 'moz-firefox',
      executablePath: values.firefox,
      firefoxUserPrefs: FIREFOX_PREFERENCES,
    }),
};
const browsers = (name) => {
  launched[name] ??= launch[name]().then((browser) => {
    say({ browser: name, version: browser.version() });
    return browser;
  });
  return launched[name];
};

const serveWith = (options) => serve(values.weir, values.media, values.media6, options);
/** Of all scenarios that have none of their own. */
let shared;
let passed = 0;
const failed = [];

/** Plays one in a room of its own, on a server with options of its own if it names some. */
async function play(scenario) {
  const room = `${scenario.name}-room`;
  const server = await (scenario.server ? serveWith(scenario.server) : (shared ??= serveWith([])));
  const control = new Control(server.control);
  const stage = new Stage({ browsers, page: server.page, control, room });
  const steps = [];
  const step = (text) => {
    steps.push(text);
    if (values.verbose) {
      say({ scenario: scenario.name, step: text });
    }
  };
  const begun = performance.now();
  let timer;
  const tooLong = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('it takes too long')), SCENARIO_MS);
  });
  try {
    await Promise.race([scenario({ stage, control, server, room, step, shots: values.shots }), tooLong]);
    passed += 1;
    say({ scenario: scenario.name, ok: true, seconds: seconds(begun), steps });
  } catch (error) {
    failed.push(scenario.name);
    const pages = await Promise.all([...stage.people].map(report));
    say({ scenario: scenario.name, ok: false, seconds: seconds(begun), error: error.message, steps, pages });
  } finally {
    clearTimeout(timer);
    await stage.clear();
    if (scenario.server) {
      await server.stop();
    }
  }
}

// Most of a scenario is waiting, so some can be played beside each other; not the one that ends the server.
const last = scenarios.at(-1);
const waiting = scenarios.filter((scenario) => scenario !== last && only.includes(scenario.name));
const lane = async () => {
  for (let scenario = waiting.shift(); scenario; scenario = waiting.shift()) {
    await play(scenario);
  }
};
await Promise.all(Array.from({ length: Number(values['at-once']) || 1 }, lane));
if (only.includes(last.name)) {
  await play(last);
}
await Promise.all(Object.values(launched).map(async (browser) => (await browser).close()));
await (await shared)?.stop();
say({ passed, failed: failed.length, names: failed });
process.exit(failed.length > 0 ? 1 : 0);

function seconds(begun) {
  return Math.round((performance.now() - begun) / 100) / 10;
}

/** What a page that was part of a failure looks like. */
async function report(person) {
  const { name, complaints, page } = person;
  const limit = (promise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, 2_000, null))]);
  const state = await limit(person.state()).catch(() => null);
  const events = await limit(page.evaluate(() => window.__weir.events.slice(-15))).catch(() => null);
  return { name, complaints: complaints.slice(-10), state, events };
}
