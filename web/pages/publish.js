// Publishes a camera, a screen or a test picture by WHIP.

import { Numbers, Session, describe, form, show } from './session.js';

const page = (id) => document.getElementById(id);
const fields = form();
const asked = new URLSearchParams(location.search);

let session = null;
let media = null;
let looking = 0;

if (asked.has('source')) {
  page('source').value = asked.get('source');
}
// Phones cannot share their screens.
if (!navigator.mediaDevices?.getDisplayMedia) {
  page('source').querySelector('[value=screen]').remove();
}

page('form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (session) {
    stop('ended');
  } else {
    publish().catch((error) => stop(error.message, 'bad'));
  }
});
addEventListener('pagehide', () => session?.end());

async function publish() {
  page('go').disabled = true;
  show('busy', 'asking for the camera');
  media = await open(page('source').value);
  page('preview').srcObject = new MediaStream(media.getVideoTracks());
  const connection = new RTCPeerConnection();
  for (const track of media.getTracks()) {
    const sendEncodings = track.kind === 'video' ? layers() : [{}];
    connection.addTransceiver(track, { direction: 'sendonly', streams: [media], sendEncodings });
    // The browser's own button ends a screen.
    track.addEventListener('ended', () => stop('the source has ended'));
  }
  show('busy', 'connecting');
  connection.addEventListener('connectionstatechange', () => {
    const { connectionState } = connection;
    if (connectionState === 'connected') {
      show('good', 'on air');
    } else if (connectionState === 'failed') {
      stop('the connection is lost', 'bad');
    } else if (connectionState === 'disconnected') {
      show('busy', 'the connection is interrupted');
    }
  });
  session = await Session.begin('whip', fields(), connection);
  const { room, peer } = fields();
  const watch = new URL('/watch', location.href);
  watch.searchParams.set('room', room);
  if (peer) {
    watch.searchParams.set('peer', peer);
  }
  page('watch').href = watch;
  page('watch').hidden = false;
  page('go').textContent = 'Stop';
  page('go').disabled = false;
  const numbers = new Numbers();
  looking = setInterval(async () => {
    page('numbers').textContent = describe(await numbers.look(connection, 'outbound-rtp'));
  }, 1000);
}

function stop(why, tone = 'idle') {
  clearInterval(looking);
  media?.getTracks().forEach((track) => track.stop());
  media?.stopDrawing?.();
  session?.end();
  [session, media] = [null, null];
  page('preview').srcObject = null;
  page('watch').hidden = true;
  page('numbers').textContent = '';
  page('go').textContent = 'Publish';
  page('go').disabled = false;
  show(tone, why);
}

function layers() {
  if (page('quality').value === 'layers') {
    return [
      { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 200_000 },
      { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 700_000 },
      { rid: 'f', maxBitrate: 2_500_000 },
    ];
  }
  return [{ maxBitrate: Number(page('quality').value) }];
}

async function open(source) {
  if (source === 'test') {
    return drawn();
  }
  const devices = navigator.mediaDevices;
  if (!devices) {
    throw new Error('browsers give cameras to pages of https and of localhost only; choose the test picture');
  }
  if (source === 'screen') {
    return devices.getDisplayMedia({ video: { frameRate: 30 }, audio: true });
  }
  return devices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true },
    video: { facingMode: source, width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
  });
}

/// A clock that moves, and a quiet tone.
function drawn() {
  const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
  const context = canvas.getContext('2d', { alpha: false });
  const began = performance.now();
  const draw = () => {
    const seconds = (performance.now() - began) / 1000;
    context.fillStyle = `hsl(${(seconds * 20) % 360} 45% 30%)`;
    context.fillRect(0, 0, 640, 360);
    context.fillStyle = 'white';
    context.beginPath();
    context.arc(320 + 240 * Math.cos(seconds), 180 + 110 * Math.sin(seconds * 1.3), 28, 0, 2 * Math.PI);
    context.fill();
    context.font = '600 64px system-ui, sans-serif';
    context.textAlign = 'center';
    context.fillText(new Date().toLocaleTimeString(), 320, 200);
  };
  draw();
  const drawing = setInterval(draw, 1000 / 30);
  const audio = new AudioContext();
  const tone = audio.createOscillator();
  const quiet = audio.createGain();
  quiet.gain.value = 0.05;
  const out = audio.createMediaStreamDestination();
  tone.connect(quiet).connect(out);
  tone.start();
  const stream = new MediaStream([...canvas.captureStream(30).getVideoTracks(), ...out.stream.getAudioTracks()]);
  stream.stopDrawing = () => {
    clearInterval(drawing);
    audio.close();
  };
  return stream;
}
