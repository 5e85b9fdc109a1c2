// People in a browser: each a page in a context of its own, on a way to the server of its own.

import { openLink } from './link.mjs';

/** A bound on waiting for what must happen; nothing comes near it when all is well. */
export const PATIENCE_MS = 60_000;

/** Between two looks. */
const LOOK_MS = 60;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `look` returns something true, and returns that. */
export async function until(what, look, patience = PATIENCE_MS) {
  const end = performance.now() + patience;
  let last;
  for (;;) {
    last = await look();
    if (last) {
      return last;
    }
    if (performance.now() > end) {
      throw new Error(`waited in vain for ${what}`);
    }
    await pause(LOOK_MS);
  }
}

export function check(holds, what) {
  if (!holds) {
    throw new Error(what);
  }
}

export class Person {
  constructor(stage, name, link, context, page) {
    Object.assign(this, { stage, name, link, context, page });
    this.complaints = [];
    page.on('pageerror', (error) => this.complaints.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') {
        this.complaints.push(message.text());
      }
    });
  }

  /** Calls one of the page's hooks. */
  do(hook, ...args) {
    return this.page.evaluate(([name, given]) => window.__weir[name](...given), [hook, args]);
  }

  state = () => this.do('state');
  stats = () => this.do('stats');

  /** Resolves with the page's state as soon as it is as wanted. */
  when(what, wanted, patience) {
    let seen;
    const look = async () => {
      seen = await this.state();
      return wanted(seen) && seen;
    };
    return until(`${this.name}: ${what}`, look, patience).catch((error) => {
      throw new Error(`${error.message}; last: ${JSON.stringify(seen)}`);
    });
  }

  /** The consumer that receives this kind of media of somebody's, once it is there and has a track. */
  async consumerOf(other, kind) {
    const find = (state) =>
      state.peers
        ?.find(({ name }) => name === other)
        ?.consumers.find((one) => one.kind === kind && one.handled && one.readyState === 'live');
    return find(await this.when(`the ${kind} of ${other}`, find));
  }

  /** What has been received of somebody so far: decoded frames of video, energy and packets of audio. */
  async received(other, kind) {
    const { id } = await this.consumerOf(other, kind);
    const stream = (await this.stats()).recv[id] ?? {};
    return {
      packets: stream.packetsReceived ?? 0,
      frames: stream.framesDecoded ?? 0,
      energy: stream.totalAudioEnergy ?? 0,
      width: stream.frameWidth,
    };
  }

  /** Waits until more is seen (ten frames) or heard (sound, not only packets) of somebody. */
  async perceives(other, kind, more = 10) {
    const before = await this.received(other, kind);
    return until(`${this.name} to perceive the ${kind} of ${other}`, async () => {
      const now = await this.received(other, kind);
      return kind === 'video' ? now.frames >= before.frames + more : now.energy > before.energy + 1e-4 && now;
    });
  }

  /**
   * Waits until nothing more arrives, and sees that it stays so while `clock` grows by `ticks`: a counter of something else
   * that goes on, so that silence is not just a slow machine.
   */
  async perceivesNothing(other, kind, clock, ticks = 40) {
    const measure = kind === 'video' ? 'frames' : 'packets';
    let from = { packets: -1 };
    let begun = 0;
    await until(`the ${kind} of ${other} to stop at ${this.name}`, async () => {
      const now = await this.received(other, kind);
      const time = await clock();
      if (now.packets !== from.packets || now[measure] !== from[measure]) {
        from = now;
        begun = time;
      }
      return time - begun >= ticks;
    });
  }

  /** How many packets of this have been received, as a clock. */
  clockOf(other, kind) {
    return async () => (await this.received(other, kind)).packets;
  }

  /** The hue of somebody's picture, in degrees. */
  async hueOf(other) {
    const [red, green, blue] = (await this.do('colour', other)).map((part) => part / 255);
    const most = Math.max(red, green, blue);
    const range = most - Math.min(red, green, blue);
    if (range < 0.05) {
      return null;
    }
    const turn =
      most === red ? ((green - blue) / range + 6) % 6 : most === green ? (blue - red) / range + 2 : (red - green) / range + 4;
    return turn * 60;
  }

  /** Waits until the picture of `other` has the colours that belong to `name`. */
  seesColours(other, name) {
    const wanted = hue(name);
    let seen;
    return until(`${this.name} to see the colours of ${name}`, async () => {
      seen = await this.hueOf(other);
      const apart = Math.abs(((seen ?? 180 + wanted) - wanted + 540) % 360 - 180);
      return apart < 20;
    }).catch((error) => {
      throw new Error(`${error.message}: hue ${seen} instead of ${wanted}`);
    });
  }

  async leave() {
    await this.context.close();
    this.link.close();
    this.stage.people.delete(this);
  }
}

/** As web/src/source.js has it. */
export function hue(name) {
  let hash = 2166136261;
  for (const character of name) {
    hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  }
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  return Math.round((((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32) * 360);
}

/** Runs in the page: whatever it offers to send or receive has this codec of video, and no other. */
function offersOnly(codec) {
  const { createOffer } = RTCPeerConnection.prototype;
  const wanted = [`video/${codec}`.toLowerCase(), 'video/rtx'];
  RTCPeerConnection.prototype.createOffer = function (...options) {
    const { codecs } = RTCRtpReceiver.getCapabilities('video');
    const preferred = codecs.filter(({ mimeType }) => wanted.includes(mimeType.toLowerCase()));
    for (const transceiver of this.getTransceivers()) {
      if (transceiver.receiver.track.kind === 'video') {
        transceiver.setCodecPreferences(preferred);
      }
    }
    return createOffer.apply(this, options);
  };
}

export class Stage {
  constructor({ browsers, page, control, room }) {
    Object.assign(this, { browsers, control, room });
    this.server = new URL(page);
    this.people = new Set();
  }

  /** Opens the page for somebody and waits until it is in the room. */
  async enter(name, { browser = 'chromium', send = 'audio,video', simulcast = false, fake = true, codec, viewport, colorScheme } = {}) {
    const link = await openLink(this.server.hostname, Number(this.server.port));
    const context = await (await this.browsers(browser)).newContext({
      viewport: viewport ?? { width: 960, height: 600 },
      ...(colorScheme && { colorScheme }),
    });
    if (codec) {
      await context.addInitScript(offersOnly, codec);
    }
    const page = await context.newPage();
    const person = new Person(this, name, link, context, page);
    this.people.add(person);
    const query = new URLSearchParams({ room: this.room, name, send, simulcast: simulcast ? '1' : '0' });
    if (fake) {
      query.set('fake', '1');
    }
    person.address = `${link.url}/?${query}`;
    await page.goto(person.address);
    await person.when('in the room', ({ state }) => state === 'joined');
    for (const kind of send.split(',').filter((kind) => kind !== 'none')) {
      await person.when(`sending ${kind}`, ({ producers }) => producers[kind]);
    }
    return person;
  }

  async clear() {
    await Promise.all([...this.people].map((person) => person.leave().catch(() => {})));
  }
}
