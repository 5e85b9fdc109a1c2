// People in browsers with programs that know plain RTP only: ffmpeg sends to them, GStreamer receives from them.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

import { check, until } from '../stage.mjs';

/** A program that ends with the scenario. */
function program(name, options) {
  const child = spawn(name, options, { stdio: ['ignore', 'pipe', 'inherit'] });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  const stop = async () => {
    kill();
    await ended;
    process.off('exit', kill);
  };
  return { child, ended, stop };
}

/** A port that nobody uses just now. */
function freePort() {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject);
    socket.bind(0, '127.0.0.1', () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}

/** Waits until somebody receives there: the first key frame must not be lost, as nobody asks for another one. */
function bound(port) {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')} `;
  return until(`port ${port} to be bound`, async () => (await readFile('/proc/net/udp', 'utf8')).includes(local));
}

const KINDS = {
  video: {
    ssrc: 1111,
    codec: { mimeType: 'video/VP8', payloadType: 96, clockRate: 90000, rtcpFeedback: [{ type: 'nack', parameter: 'pli' }] },
    input: ['-f', 'lavfi', '-i', 'testsrc=size=320x180:rate=25'],
    encoder: ['-c:v', 'libvpx', '-deadline', 'realtime', '-cpu-used', '8', '-g', '25', '-b:v', '300k'],
  },
  audio: {
    ssrc: 2222,
    codec: { mimeType: 'audio/opus', payloadType: 97, clockRate: 48000, channels: 2 },
    input: ['-f', 'lavfi', '-i', 'sine=frequency=440'],
    encoder: ['-c:a', 'libopus', '-ac', '2'],
  },
};

/** ffmpeg sends a picture and a tone by plain RTP, and people in browsers see and hear it like anybody else. */
export async function ffmpegIsSeenAndHeard({ stage, step }) {
  const { control } = stage;
  const ana = await stage.enter('Ana', { send: 'none' });
  const room = await control.room(stage.room);
  await control.ask('POST', `/rooms/${room}/peers`, { name: 'Camera', rtpCapabilities: { codecs: [] } });
  const programs = [];
  try {
    for (const [kind, { ssrc, codec, input, encoder }] of Object.entries(KINDS)) {
      const options = { comedia: true, direction: 'send' };
      const transport = await control.ask('POST', `/rooms/${room}/peers/Camera/transports`, options);
      const rtpParameters = { codecs: [codec], encodings: [{ ssrc }] };
      await control.ask('POST', `/transports/${transport.id}/producers`, { kind, rtpParameters });
      const address = `rtp://127.0.0.1:${transport.tuple.localPort}?pkt_size=1200`;
      const numbers = ['-ssrc', String(ssrc), '-payload_type', String(codec.payloadType)];
      programs.push(
        program('ffmpeg', ['-nostdin', '-loglevel', 'error', '-re', ...input, ...encoder, ...numbers, '-f', 'rtp', address]),
      );
    }
    await ana.perceives('Camera', 'video', 30);
    step('Ana sees what ffmpeg sends');
    await ana.perceives('Camera', 'audio');
    step('Ana hears what ffmpeg sends');
    const ben = await stage.enter('Ben', { send: 'none' });
    await ben.perceives('Camera', 'video', 30);
    step('so does Ben, who came later');
  } finally {
    await Promise.all(programs.map(({ stop }) => stop()));
    await control.ask('DELETE', `/rooms/${room}/peers/Camera`);
  }
}

/** What a browser sends is decoded by GStreamer, which gets it by plain RTP. */
export async function gstreamerDecodesABrowser({ stage, step }) {
  const { control } = stage;
  await stage.enter('Ana');
  const room = await control.room(stage.room);
  const { codecs } = await control.ask('GET', `/rooms/${room}/rtp-capabilities`);
  const rows = [
    ['video', 'VP8', 'media=video,clock-rate=90000,encoding-name=VP8', 'rtpvp8depay ! vp8dec'],
    ['audio', 'opus', 'media=audio,clock-rate=48000,encoding-name=OPUS', 'rtpopusdepay ! opusdec'],
  ];
  for (const [kind, codec, caps, decode] of rows) {
    const port = await freePort();
    const { preferredPayloadType } = codecs.find(({ name }) => name === codec);
    const source = `udpsrc address=127.0.0.1 port=${port} caps=application/x-rtp,${caps},payload=${preferredPayloadType}`;
    const pipeline = `-q ${source} ! rtpjitterbuffer ! ${decode} ! checksumsink sync=false`;
    const receiver = program('gst-launch-1.0', pipeline.split(' '));
    try {
      const frames = new Set();
      createInterface({ input: receiver.child.stdout }).on('line', (line) => frames.add(line.split(' ')[1]));
      await bound(port);
      const producer = await control.producer(stage.room, 'Ana', kind);
      const streamer = await control.ask('POST', `/rooms/${room}/rtp-streamers`, {
        producer: producer.id,
        remoteIp: '127.0.0.1',
        remotePort: port,
      });
      const [sent] = streamer.rtpParameters.codecs;
      check(sent.payloadType === preferredPayloadType, `it streams ${JSON.stringify(streamer)}`);
      await until(`GStreamer to decode ${kind}`, async () => frames.size > 30);
      step(`GStreamer has decoded ${kind}: 30 frames, no two alike`);
      await control.ask('DELETE', `/transports/${streamer.transport}`);
    } finally {
      await receiver.stop();
    }
  }
}
