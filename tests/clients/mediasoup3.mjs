// Two people in Chromium with mediasoup-client 3, and an application between them and a server's control interface that passes on
// what either says, unchanged but for ids.
//
//     node mediasoup3.mjs --control SOCKET --chromium PATH
//
// It prints what each has decoded, and fails if anything is not as it should be.

import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

import { Control } from '../browser/control.mjs';

const { values } = parseArgs({
  options: { control: { type: 'string' }, chromium: { type: 'string', default: '/usr/bin/chromium' } },
});

/** A bound on waiting for what must happen. */
const PATIENCE_MS = 60_000;

const control = new Control(values.control);

const bundle = await build({
  stdin: { contents: "export { Device } from 'mediasoup-client';", resolveDir: import.meta.dirname },
  bundle: true,
  write: false,
  format: 'iife',
  globalName: 'mediasoupClient',
  platform: 'browser',
  define: { global: 'globalThis' },
  logLevel: 'error',
});

// Devices are for pages of a safe origin only.
const pages = createServer((_, response) => {
  response.setHeader('content-type', 'text/html');
  response.end('<!doctype html><title>mediasoup 3</title>');
});
await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve));

const browser = await chromium.launch({
  executablePath: values.chromium,
  args: [
    '--no-sandbox',
    '--disable-dev-shm-usage',
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    '--allow-loopback-in-peer-connection',
    '--autoplay-policy=no-user-gesture-required',
    '--mute-audio',
  ],
});

/** Runs in the page: a person with a transport in each direction. */
async function join({ capabilities, sending, receiving }) {
  const device = await mediasoupClient.Device.factory();
  await device.load({ routerRtpCapabilities: capabilities });
  const send = device.createSendTransport(sending);
  const receive = device.createRecvTransport(receiving);
  for (const transport of [send, receive]) {
    transport.on('connect', ({ dtlsParameters }, done, fail) =>
      weir('PUT', `/transports/${transport.id}/dtls`, dtlsParameters).then(done, fail));
  }
  send.on('produce', ({ kind, rtpParameters, appData }, done, fail) =>
    weir('POST', `/transports/${send.id}/producers`, { kind, rtpParameters, appData }).then(
      ({ id }) => done({ id: String(id) }), fail));
  window.person = { device, send, receive, consumers: [] };
}

/** Runs in the page: sends the camera in three layers, and the microphone after it. */
async function publish() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  const [video] = stream.getVideoTracks();
  const [audio] = stream.getAudioTracks();
  const encodings = [4, 2, 1].map((scaleResolutionDownBy) => ({
    scaleResolutionDownBy, maxBitrate: 1_200_000 / scaleResolutionDownBy, scalabilityMode: 'L1T1',
  }));
  const camera = await person.send.produce({ track: video, encodings });
  const microphone = await person.send.produce({ track: audio });
  return [camera.id, microphone.id];
}

/** Runs in the page: receives a producer, and resolves with its consumer's id. */
async function consume(producerId) {
  const { device, receive, consumers } = person;
  const wanted = { producer: producerId, rtpCapabilities: device.rtpCapabilities, paused: true };
  const { id, kind, rtpParameters } = await weir('POST', `/transports/${receive.id}/consumers`, wanted);
  const consumer = await receive.consume({ id: String(id), producerId, kind, rtpParameters });
  consumers.push(consumer);
  const element = document.body.appendChild(document.createElement(kind));
  element.srcObject = new MediaStream([consumer.track]);
  element.play();
  await weir('POST', `/consumers/${id}/resume`);
  return String(id);
}

/** Runs in the page: what has been decoded. */
async function decoded() {
  const found = {};
  for (const consumer of person.consumers) {
    for (const report of (await consumer.getStats()).values()) {
      if (report.type === 'inbound-rtp') {
        found[report.kind] = {
          frames: report.framesDecoded, width: report.frameWidth, samples: report.totalSamplesReceived, concealed: report.concealedSamples,
        };
      }
    }
  }
  return found;
}

/** What was decoded when it was last looked at, for who waits in vain. */
let last;

async function until(what, look) {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) {
      return found;
    }
    if (performance.now() > end) {
      throw new Error(`waited in vain for ${what}: ${JSON.stringify(last)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function enter(room) {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(error));
  await page.exposeFunction('weir', (method, path, body) => control.ask(method, path, body));
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  await page.addScriptTag({ content: bundle.outputFiles[0].text });
  const transport = async () =>
    (await control.ask('POST', `/rooms/${room}/webrtc-transports`, {})).webrtc.clientOptions;
  const capabilities = await control.ask('GET', `/rooms/${room}/rtp-capabilities`);
  await page.evaluate(join, { capabilities, sending: await transport(), receiving: await transport() });
  return page;
}

try {
  const { id: room } = await control.ask('POST', '/rooms', {});
  const people = [await enter(room), await enter(room)];
  const producers = [];
  for (const page of people) {
    producers.push(await page.evaluate(publish));
  }
  const cameras = [];
  for (const [index, page] of people.entries()) {
    const [camera, microphone] = producers[1 - index];
    cameras.push(await page.evaluate(consume, camera));
    await page.evaluate(consume, microphone);
  }
  const sees = (page, what, holds) =>
    until(what, async () => {
      const found = await page.evaluate(decoded);
      last = found;
      return found.video && found.audio && holds(found) && found;
    });
  const hears = ({ audio }) => audio.samples - audio.concealed > 48_000;
  // Of a picture of this size Chromium sends two layers, whatever it is asked for.
  for (const page of people) {
    const found = await sees(page, 'the higher layer', (found) => found.video.frames > 30 && found.video.width === 320 && hears(found));
    console.log(JSON.stringify(found));
  }
  const [page] = people;
  await control.ask('PUT', `/consumers/${cameras[0]}/preferred-profile`, { profile: 'low' });
  await sees(page, 'the lower layer', ({ video }) => video.width === 160);
  await control.ask('POST', `/consumers/${cameras[0]}/pause`);
  const paused = await page.evaluate(decoded);
  await until('a pause', async () => (await control.ask('GET', `/consumers/${cameras[0]}`)).paused);
  await control.ask('POST', `/consumers/${cameras[0]}/resume`);
  await sees(page, 'pictures after a pause', ({ video }) => video.frames > paused.video.frames + 30);
  await control.ask('DELETE', `/producers/${producers[1][0]}`);
  await until('the end of the consumer', async () =>
    control.ask('GET', `/consumers/${cameras[0]}`).then(() => false, () => true));
  console.log('ok');
} finally {
  await browser.close();
  pages.close();
}
