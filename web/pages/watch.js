// Watches by WHEP whoever publishes, now or later.

import { Numbers, Session, bits, describe, form, show } from './session.js';

const page = (id) => document.getElementById(id);
const fields = form();
const video = page('video');

let session = null;
let events = null;
let looking = 0;
let isActive = false;

page('form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (session) {
    stop('ended');
  } else {
    watch().catch((error) => stop(error.message, 'bad'));
  }
});
page('sound').addEventListener('click', () => {
  video.muted = !video.muted;
  page('sound').textContent = video.muted ? 'Sound on' : 'Sound off';
});
page('layer').addEventListener('change', () => choose(page('layer').value));
addEventListener('pagehide', () => session?.end());

if (new URLSearchParams(location.search).has('room')) {
  watch().catch((error) => stop(error.message, 'bad'));
}

async function watch() {
  page('go').disabled = true;
  show('busy', 'connecting');
  const connection = new RTCPeerConnection();
  const stream = new MediaStream();
  for (const kind of ['audio', 'video']) {
    connection.addTransceiver(kind, { direction: 'recvonly' });
  }
  connection.addEventListener('track', ({ track }) => {
    stream.addTrack(track);
    video.srcObject = stream;
    // Browsers play sound only after a click; then the button is there.
    video.play().catch(() => {});
  });
  connection.addEventListener('connectionstatechange', () => {
    if (connection.connectionState === 'failed') {
      stop('the connection is lost', 'bad');
    } else {
      state(connection);
    }
  });
  session = await Session.begin('whep', fields(), connection);
  page('go').textContent = 'Stop';
  page('go').disabled = false;
  page('sound').hidden = false;
  await listen(connection);
  const numbers = new Numbers();
  looking = setInterval(async () => {
    page('numbers').textContent = describe(await numbers.look(connection, 'inbound-rtp'));
  }, 1000);
}

function state({ connectionState }) {
  if (connectionState === 'connected') {
    show(isActive ? 'good' : 'busy', isActive ? 'live' : 'waiting for somebody to publish');
  } else if (connectionState === 'disconnected') {
    show('busy', 'the connection is interrupted');
  }
}

/// Follows what the server tells: who publishes, with which layers, for how many.
async function listen(connection) {
  const made = await fetch(session.links['server-sent-events'], { method: 'POST' });
  if (!made.ok) {
    return;
  }
  events = new EventSource(made.headers.get('location'));
  for (const [name, active] of [['active', true], ['inactive', false]]) {
    events.addEventListener(name, () => {
      isActive = active;
      state(connection);
    });
  }
  events.addEventListener('viewercount', ({ data }) => {
    const { viewercount } = JSON.parse(data);
    page('viewers').textContent = viewercount === 1 ? '1 viewer' : `${viewercount} viewers`;
  });
  events.addEventListener('layers', ({ data }) => {
    const [layers = []] = Object.values(JSON.parse(data));
    const chosen = page('layer').value;
    const options = layers.map(({ rid, bitrate }) => new Option(bitrate ? `${rid}, ${bits(bitrate)}` : rid, rid));
    page('layer').replaceChildren(new Option('best', ''), ...options);
    page('layer').value = layers.some(({ rid }) => rid === chosen) ? chosen : '';
    page('layers').hidden = layers.length < 2;
  });
}

async function choose(rid) {
  const body = JSON.stringify(rid ? { rid } : {});
  await fetch(session.links.layer, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
}

function stop(why, tone = 'idle') {
  clearInterval(looking);
  events?.close();
  session?.end();
  [session, events, isActive] = [null, null, false];
  video.srcObject = null;
  for (const id of ['sound', 'layers']) {
    page(id).hidden = true;
  }
  page('numbers').textContent = '';
  page('viewers').textContent = '';
  page('go').textContent = 'Watch';
  page('go').disabled = false;
  show(tone, why);
}
