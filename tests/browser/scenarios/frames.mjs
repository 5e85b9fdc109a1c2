// How browsers cut frames into packets: what `weir load --uneven` imitates, and `frame-sizes.tsv` keeps.

import { createSocket } from 'node:dgram';
import { readFile } from 'node:fs/promises';

import { check, until } from '../stage.mjs';

/** Frames of several packets that are looked at. */
const FRAMES = 60;

/** Those of them that have three or more, which show which ones are longer. */
const LARGE_FRAMES = 20;

/** Frames that were captured once, which the tests of `weir load` cut again: browser, version, sizes of packets. */
const TABLE = new URL('../frame-sizes.tsv', import.meta.url);

/** Chromium, with the picture of a made-up camera. */
export const frameSizesOfChromium = (play) => frameSizes('chromium', { fake: false }, play);

/** Firefox, likewise. */
export const firefoxFrameSizes = (play) => frameSizes('firefox', { browser: 'firefox', fake: false }, play);

async function frameSizes(browser, looks, { stage, control, room, step }) {
  const ana = await stage.enter('Ana', looks);
  const ben = await stage.enter('Ben', { send: 'none' });
  await ben.perceives('Ana', 'video', 10);
  const { transport } = await control.producer(room, 'Ana', 'video');
  const frames = await capture(control, transport);
  for (const sizes of frames) {
    check(isCutByTheRule(sizes), `${browser} cuts a frame into ${sizes}`);
  }
  step(`${frames.length} frames: ${frames.map((sizes) => sizes.join(' ')).join('; ')}`);
  // What was kept when the table was made follows the same rule, or the rule has changed since.
  const kept = (await readFile(TABLE, 'utf8')).split('\n').filter((line) => line.startsWith(`${browser}\t`));
  check(kept.length > 0, `frame-sizes.tsv has nothing of ${browser}`);
  for (const line of kept) {
    check(isCutByTheRule(line.split('\t').at(-1).split(' ').map(Number)), `frame-sizes.tsv: ${line}`);
  }
  await ana.leave();
}

/** Packets of a frame are equal, but that the last ones may be one byte longer. */
function isCutByTheRule(sizes) {
  const [first] = sizes;
  const longer = sizes.indexOf(first + 1);
  const expected = longer < 0 ? sizes.length : longer;
  return sizes.every((size, place) => size === first + (place < expected ? 0 : 1));
}

/** The sizes of the packets of frames that come to a transport, without what encryption adds. */
async function capture(control, transport) {
  const socket = createSocket('udp4');
  const frames = new Map();
  socket.on('message', (packet) => {
    // Sound has one packet for each timestamp, and so is no frame of several.
    const [ssrc, timestamp, seq] = [packet.readUInt32BE(8), packet.readUInt32BE(4), packet.readUInt16BE(2)];
    const key = `${ssrc}-${timestamp}`;
    const frame = frames.get(key) ?? [];
    frame.push({ seq, size: packet.length, marker: (packet[1] & 0x80) !== 0 });
    frames.set(key, frame);
  });
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
  try {
    const remote = { remoteIp: '127.0.0.1', remotePort: socket.address().port };
    await control.ask('PUT', `/transports/${transport}/mirroring`, { ...remote, sendRtp: false, sendRtcp: false, recvRtcp: false });
    const whole = () => [...frames.values()].filter(isWhole);
    await until(`${FRAMES} frames of several packets`, () => {
      const captured = whole();
      return captured.length >= FRAMES && captured.filter(({ length }) => length > 2).length >= LARGE_FRAMES;
    });
    return whole().map((frame) => frame.map(({ size }) => size));
  } finally {
    await control.ask('DELETE', `/transports/${transport}/mirroring`);
    socket.close();
  }
}

/** Several packets, all that there are between their first and the marker. */
function isWhole(frame) {
  frame.sort((one, other) => ((one.seq - other.seq) << 16) >> 16);
  const consecutive = frame.every(({ seq }, place) => seq === ((frame[0].seq + place) & 0xffff));
  return frame.length > 1 && consecutive && frame.at(-1).marker;
}
