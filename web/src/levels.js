// How loud everybody is, and who speaks. The mediasoup protocol tells clients neither, so the page works it out: for others
// from the level that each of their packets carries (RFC 6464) and the server relays, for oneself from the samples.

import { audioContext } from './source.js';

/** Between looks, in milliseconds. */
const LOOK_MS = 120;

/** From here on, of 1, it is speech. */
const LOUD = 0.02;

/** How much louder somebody must be to be heard before the one who speaks. */
const AHEAD = 1.3;

/** For which somebody who is silent stays the speaker, in milliseconds. */
const HOLD_MS = 1_500;

/** How much of the last level is left after a look. */
const DECAY = 0.6;

/** How loud the microphone is, without being heard. */
class Meter {
  #node;
  #source;
  #samples;

  constructor(track) {
    const context = audioContext();
    this.track = track;
    this.#source = context.createMediaStreamSource(new MediaStream([track]));
    this.#node = context.createAnalyser();
    this.#node.fftSize = 1024;
    this.#samples = new Float32Array(this.#node.fftSize);
    this.#source.connect(this.#node);
  }

  read() {
    this.#node.getFloatTimeDomainData(this.#samples);
    const sum = this.#samples.reduce((all, sample) => all + sample * sample, 0);
    return Math.sqrt(sum / this.#samples.length);
  }

  close() {
    this.#source.disconnect();
  }
}

/** Calls `show(levels, speaker)` several times a second: a level from 0 to 1 by name, and the name of who speaks or null. */
export class Levels {
  #meter = null;
  #smooth = new Map();
  #speaker = null;
  #loudAt = 0;

  constructor(call, show) {
    this.call = call;
    this.show = show;
    this.timer = setInterval(() => this.#look(), LOOK_MS);
  }

  close() {
    clearInterval(this.timer);
    this.#meter?.close();
  }

  get speaker() {
    return this.#speaker;
  }

  get all() {
    return this.#smooth;
  }

  #look() {
    const { call } = this;
    if (call.state !== 'joined') {
      return;
    }
    const raw = new Map([[call.name, this.#own()]]);
    const receivers = new Map();
    for (const receiver of call.peerConnection('recv')?.getReceivers() ?? []) {
      receivers.set(receiver.track, receiver);
    }
    for (const peer of call.peers) {
      const heard = peer.consumers.filter(({ kind, paused, track }) => kind === 'audio' && !paused && track);
      const levels = heard.map(({ track }) => {
        const [source] = receivers.get(track)?.getSynchronizationSources() ?? [];
        return source?.audioLevel ?? 0;
      });
      raw.set(peer.name, Math.max(0, ...levels));
    }
    for (const name of this.#smooth.keys()) {
      if (!raw.has(name)) {
        this.#smooth.delete(name);
      }
    }
    for (const [name, level] of raw) {
      this.#smooth.set(name, Math.max(level, (this.#smooth.get(name) ?? 0) * DECAY));
    }
    this.#choose();
    this.show(this.#smooth, this.#speaker);
  }

  #own() {
    const producer = this.call.producers.audio;
    const track = producer && !producer.paused ? producer.track : null;
    if (this.#meter?.track !== track) {
      this.#meter?.close();
      this.#meter = track ? new Meter(track) : null;
    }
    return this.#meter?.read() ?? 0;
  }

  #choose() {
    const now = performance.now();
    const ranked = [...this.#smooth].sort(([, left], [, right]) => right - left);
    const [loudest, level] = ranked[0] ?? [null, 0];
    const current = this.#smooth.get(this.#speaker) ?? 0;
    if (current >= LOUD) {
      this.#loudAt = now;
    }
    const silent = now - this.#loudAt > HOLD_MS;
    if (level >= LOUD && (current < LOUD || level > current * AHEAD)) {
      this.#speaker = loudest;
      this.#loudAt = now;
    } else if (silent) {
      this.#speaker = null;
    }
  }
}
