// Numbers on what is sent and received: the browser's own every second, and the server's for each consumer.

/** Between two collections, in milliseconds; the server sends its own no more often. */
const INTERVAL_MS = 1_000;

/** Which of the browser's counters are kept of a stream. */
const COUNTERS = [
  'bytesReceived',
  'packetsReceived',
  'packetsLost',
  'framesDecoded',
  'framesDropped',
  'keyFramesDecoded',
  'totalAudioEnergy',
  'totalSamplesReceived',
  'concealedSamples',
  'freezeCount',
  'pliCount',
  'nackCount',
  'jitter',
  'audioLevel',
  'frameWidth',
  'frameHeight',
  'framesPerSecond',
  'bytesSent',
  'packetsSent',
  'framesEncoded',
  'keyFramesEncoded',
  'retransmittedPacketsSent',
  'ssrc',
];

function pick(report) {
  const entries = COUNTERS.filter((name) => report[name] !== undefined).map((name) => [name, report[name]]);
  return Object.fromEntries(entries);
}

/**
 * What the browser says right now: `recv` by consumer id, `send` by kind with one entry for each of its streams in
 * `streams` and their sums beside, `rttMs` by direction.
 */
export async function snapshot(call) {
  const now = { at: performance.now(), recv: {}, send: {}, rttMs: {} };
  const receiving = await call.peerConnection('recv')?.getStats();
  const byMid = new Map(call.consumers.map(({ id, kind }) => [`${kind[0]}${id}`, id]));
  receiving?.forEach((report) => {
    if (report.type === 'inbound-rtp' && byMid.has(report.mid)) {
      now.recv[byMid.get(report.mid)] = pick(report);
    }
  });
  now.rttMs.recv = roundTrip(receiving);
  const sending = await call.peerConnection('send')?.getStats();
  sending?.forEach((report) => {
    if (report.type === 'outbound-rtp') {
      const kind = (now.send[report.kind] ??= { streams: [], bytesSent: 0, packetsSent: 0, framesEncoded: 0 });
      const stream = pick(report);
      kind.streams.push(stream);
      for (const name of ['bytesSent', 'packetsSent', 'framesEncoded']) {
        kind[name] += stream[name] ?? 0;
      }
    }
  });
  sending?.forEach((report) => {
    const kind = now.send[report.kind];
    if (report.type === 'remote-inbound-rtp' && kind) {
      kind.fractionLost = Math.max(kind.fractionLost ?? 0, report.fractionLost ?? 0);
      kind.roundTripTime = report.roundTripTime;
    }
    if (report.type === 'media-source' && kind) {
      kind.source = pick(report);
      kind.source.totalAudioEnergy = report.totalAudioEnergy;
    }
  });
  now.rttMs.send = roundTrip(sending);
  return now;
}

function roundTrip(reports) {
  let found = null;
  reports?.forEach((report) => {
    if (report.type === 'candidate-pair' && report.nominated && report.currentRoundTripTime !== undefined) {
      found = report.currentRoundTripTime * 1000;
    }
  });
  return found;
}

/** Collects while it is on, and calls `show(this)` when there is something new. */
export class Statistics {
  #last = null;
  #timer = 0;
  /** What the server said last, by consumer id. */
  #server = new Map();

  constructor(call, show) {
    this.call = call;
    this.show = show;
    this.on = false;
    this.rates = { recv: {}, send: {}, rttMs: {} };
    call.addEventListener('consumer', ({ detail }) => this.#follow(detail));
    call.consumers.forEach((consumer) => this.#follow(consumer));
  }

  turn(on) {
    if (this.on === on) {
      return;
    }
    this.on = on;
    for (const consumer of this.call.consumers) {
      if (on) {
        consumer.enableStats(INTERVAL_MS);
      } else {
        consumer.disableStats();
      }
    }
    clearInterval(this.#timer);
    this.#last = null;
    if (on) {
      this.#timer = setInterval(() => this.#collect(), INTERVAL_MS);
      this.#collect();
    }
  }

  close() {
    this.on = false;
    clearInterval(this.#timer);
  }

  /** The server's numbers on what it sends by a consumer, or none yet. */
  server(id) {
    return this.#server.get(id) ?? null;
  }

  #follow(consumer) {
    consumer.on('stats', (stats) => this.#server.set(consumer.id, stats));
    consumer.on('close', () => this.#server.delete(consumer.id));
    if (this.on) {
      consumer.enableStats(INTERVAL_MS);
    }
  }

  async #collect() {
    if (this.call.state !== 'joined') {
      return;
    }
    const now = await snapshot(this.call);
    const last = this.#last;
    this.#last = now;
    if (!this.on || !last) {
      return;
    }
    const seconds = (now.at - last.at) / 1000;
    this.rates = { recv: {}, send: {}, rttMs: now.rttMs };
    for (const [id, stream] of Object.entries(now.recv)) {
      const before = last.recv[id];
      if (before) {
        const received = stream.packetsReceived - before.packetsReceived;
        const lost = Math.max(0, stream.packetsLost - before.packetsLost);
        this.rates.recv[id] = {
          ...stream,
          bitrate: ((stream.bytesReceived - before.bytesReceived) * 8) / seconds,
          lossShare: received + lost > 0 ? lost / (received + lost) : 0,
        };
      }
    }
    for (const [kind, sent] of Object.entries(now.send)) {
      const before = last.send[kind];
      if (before) {
        this.rates.send[kind] = { ...sent, bitrate: ((sent.bytesSent - before.bytesSent) * 8) / seconds };
      }
    }
    this.show(this);
  }
}

/** `1.25 Mbit/s` */
export function bitrate(bits) {
  if (!Number.isFinite(bits)) {
    return '–';
  }
  return bits >= 999_500 ? `${(bits / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bits / 1000)} kbit/s`;
}

/** `0.4 %` */
export function percent(share) {
  return Number.isFinite(share) ? `${(share * 100).toFixed(1)} %` : '–';
}

/** `12 ms` */
export function milliseconds(ms) {
  return Number.isFinite(ms) ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : '–';
}
