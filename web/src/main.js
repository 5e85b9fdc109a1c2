// The page: the door, the stage, the controls, and what they do.

import { Call, word } from './call.js';
import { CLOSE } from './connection.js';
import { installHooks } from './hooks.js';
import { Levels } from './levels.js';
import { audioContext, hasDevices, openSource } from './source.js';
import { Statistics } from './statistics.js';
import { OwnTile, PeerTile, setIcon, setText } from './tile.js';

/** Between attempts to join anew after the server was lost, in milliseconds. */
const REJOIN_MS = [500, 1_000, 2_000, 4_000];

const NAMES = ['Ana', 'Ben', 'Cleo', 'Dora', 'Eli', 'Fay', 'Gus', 'Hana', 'Ivo', 'June', 'Kai', 'Lea', 'Milo', 'Nia', 'Otis', 'Pia'];

const byId = (id) => document.getElementById(id);

const parameters = new URLSearchParams(location.search);
const fragment = new URLSearchParams(location.hash.slice(1));

/** What the page is, as a whole. */
const page = {
  call: null,
  source: null,
  statistics: null,
  levels: null,
  tiles: new Map(),
  /** What has happened, for tests. */
  events: [],
  wishes: null,
  rejoining: 0,
  attempts: 0,
};

/* The door */

function truthy(name) {
  const value = parameters.get(name);
  return value !== null && value !== '0' && value !== 'false';
}

async function openDoor() {
  byId('room').value = parameters.get('room') ?? 'lobby';
  byId('name').value = parameters.get('name') ?? NAMES[Math.floor(Math.random() * NAMES.length)];
  byId('simulcast').checked = parameters.get('simulcast') !== '0';
  const generated = truthy('fake') || !(await hasDevices());
  const kinds = parameters.get('send');
  const source = kinds === 'none' ? 'none' : generated ? 'generated' : 'devices';
  byId('form').elements.source.value = source;
  byId('form').addEventListener('submit', (event) => {
    event.preventDefault();
    // The one moment at which a browser lets a page make sounds from now on.
    audioContext();
    enter(wishesOfForm());
  });
  if (parameters.has('room') && parameters.has('name')) {
    await enter(wishesOfForm());
  }
}

/** What to send can be narrowed by `?send=audio`, `?send=video` or `?send=none`. */
function wishesOfForm() {
  const form = byId('form');
  const source = form.elements.source.value;
  const send = parameters.get('send') ?? 'audio,video';
  return {
    room: byId('room').value.trim(),
    name: byId('name').value.trim(),
    token: fragment.get('token') ?? undefined,
    simulcast: byId('simulcast').checked,
    generated: source === 'generated' || truthy('fake'),
    kinds: source === 'none' ? [] : send.split(',').filter((kind) => kind === 'audio' || kind === 'video'),
  };
}

async function enter(wishes) {
  byId('join').disabled = true;
  byId('join').textContent = 'Joining…';
  byId('door-error').hidden = true;
  try {
    await join(wishes);
  } catch (error) {
    record('joinFailed', { message: error.message });
    showDoor();
    setText(byId('door-error'), sentence(error));
    byId('door-error').hidden = false;
    byId(/duplicated|name/i.test(error.message) ? 'name' : 'join').focus();
  } finally {
    byId('join').disabled = false;
    byId('join').textContent = 'Join';
  }
}

function sentence(error) {
  switch (error.name) {
    case 'NotAllowedError':
      return 'The browser was not allowed to use the camera and the microphone. Choose the drawing instead, or allow it.';
    case 'NotFoundError':
      return 'There is no camera or no microphone. Choose the drawing instead.';
    default:
      if (/duplicated/i.test(error.message)) {
        return 'Somebody of this name is in the room. Choose another one.';
      }
      return `That did not work: ${error.message}`;
  }
}

/* Joining and leaving */

async function join(wishes) {
  page.wishes = wishes;
  const call = new Call(wishes);
  page.call = call;
  call.addEventListener('change', renderSoon);
  call.addEventListener('note', ({ detail }) => announce(detail));
  call.addEventListener('peer', ({ detail }) => {
    record('peer', { name: detail.name });
    announce(`${detail.name} is here`);
  });
  call.addEventListener('consumer', ({ detail }) => {
    record('consumer', { id: detail.id, kind: detail.kind, peer: detail.peer.name });
    detail.on('close', () => record('consumerClosed', { id: detail.id, kind: detail.kind }));
  });
  call.addEventListener('end', ({ detail }) => ended(detail));
  renderPill();
  await call.join();
  record('joined', { name: wishes.name, room: wishes.room });
  page.attempts = 0;
  page.statistics = new Statistics(call, renderNumbers);
  page.levels = new Levels(call, renderLevels);
  showStage();
  if (byId('tool-statistics').ariaPressed === 'true') {
    page.statistics.turn(true);
  }
  for (const kind of wishes.kinds) {
    await send(kind);
  }
}

/** Sends a kind of media, from the source that there is or a new one. */
async function send(kind) {
  const { call, wishes } = page;
  try {
    let track = page.source?.tracks[kind];
    if (!track || track.readyState === 'ended') {
      const kinds = wishes.kinds.includes(kind) ? wishes.kinds : [kind];
      await openTracks(kinds);
      track = page.source.tracks[kind];
    }
    if (track) {
      await call.produce(kind, track);
      wishes.kinds = [...new Set([...wishes.kinds, kind])];
    }
  } catch (error) {
    record('sendFailed', { kind, message: error.message });
    tell(`Your ${word(kind)} cannot be sent. ${sentence(error)}`);
  }
}

/** Opens what is missing of these kinds, beside what is open already. */
async function openTracks(kinds) {
  const { wishes, source } = page;
  const missing = (kind) => kinds.includes(kind) && source?.tracks[kind]?.readyState !== 'live';
  const { name, simulcast } = wishes;
  const wanted = { name, simulcast, audio: missing('audio'), video: missing('video') };
  let opened;
  try {
    opened = await openSource({ ...wanted, generated: wishes.generated });
  } catch (error) {
    if (wishes.generated || error.name === 'NotAllowedError') {
      throw error;
    }
    // No device, or one that somebody else has: the page makes up for it.
    announce(`${error.message}; sending a drawing and a tone instead`);
    wishes.generated = true;
    opened = await openSource({ ...wanted, generated: true });
  }
  page.source = {
    generated: opened.generated,
    tracks: { ...source?.tracks, ...withoutUndefined(opened.tracks) },
    stop() {
      source?.stop();
      opened.stop();
    },
  };
}

function withoutUndefined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

function clear() {
  page.statistics?.close();
  page.levels?.close();
  page.statistics = null;
  page.levels = null;
  page.tiles.forEach((tile) => tile.remove());
  page.tiles.clear();
}

function leave() {
  clearTimeout(page.rejoining);
  page.call?.leave();
  record('left', {});
  page.source?.stop();
  page.source = null;
  clear();
  tell(null);
  showDoor();
}

/** The call is over, and not by one's own wish. */
function ended({ code, reason }) {
  record('ended', { code, reason });
  clear();
  render();
  const again = () => {
    tell(null);
    clearTimeout(page.rejoining);
    rejoin();
  };
  switch (code) {
    case CLOSE.closed:
      return tell(`The server has closed this room, or your place in it${plainly(reason)}.`, 'Join again', again);
    case CLOSE.takenOver:
      return tell('You are in this room from somewhere else now.', 'Join again', again);
    case CLOSE.left:
      return tell('You have left.', 'Join again', again);
    case CLOSE.malformed:
    case CLOSE.notText:
      return tell(`The server did not understand this page: ${reason}`, 'Join again', again);
    default:
      tell('The server does not know this session any more. Joining anew…', 'Join now', again);
      page.rejoining = setTimeout(again, REJOIN_MS[0]);
  }
}

function plainly(reason) {
  return reason && !/closed/i.test(reason) ? `: ${reason}` : '';
}

async function rejoin() {
  try {
    await join(page.wishes);
  } catch (error) {
    record('joinFailed', { message: error.message });
    page.attempts += 1;
    const wait = REJOIN_MS[Math.min(page.attempts, REJOIN_MS.length - 1)];
    const again = () => {
      clearTimeout(page.rejoining);
      rejoin();
    };
    tell(`The server cannot be reached (${error.message}). Trying again…`, 'Try now', again);
    page.rejoining = setTimeout(again, wait);
    renderPill();
    return;
  }
  tell(null);
}

/* What is shown */

function showDoor() {
  byId('door').hidden = false;
  byId('stage').hidden = true;
  byId('controls').hidden = true;
  setText(byId('where'), '');
  document.title = 'Weir';
  renderPill();
}

function showStage() {
  byId('door').hidden = true;
  byId('stage').hidden = false;
  byId('controls').hidden = false;
  const room = document.createElement('b');
  room.textContent = page.call.roomName;
  byId('where').replaceChildren(room);
  document.title = `${page.call.roomName} · Weir`;
  const invitation = new URLSearchParams(parameters);
  invitation.set('room', page.call.roomName);
  invitation.delete('name');
  history.replaceState(null, '', `?${invitation}${location.hash}`);
  render();
  byId('grid').focus({ preventScroll: true });
}

let renderQueued = false;

/** After everything that changes at the same moment. Not by animation frame: tabs in the background have none. */
function renderSoon() {
  if (!renderQueued) {
    renderQueued = true;
    queueMicrotask(() => {
      renderQueued = false;
      render();
    });
  }
}

function render() {
  renderPill();
  const { call, tiles } = page;
  if (call?.state === 'joined') {
    const present = new Set([call.name, ...call.peers.map(({ name }) => name)]);
    for (const [name, tile] of tiles) {
      if (!present.has(name) || (tile.call ?? call) !== call || (tile.peer && !call.peers.includes(tile.peer))) {
        tile.remove();
        tiles.delete(name);
      }
    }
    if (!tiles.has(call.name)) {
      add(new OwnTile(call));
    }
    for (const peer of call.peers) {
      if (!tiles.has(peer.name)) {
        add(new PeerTile(peer));
      }
    }
    tiles.forEach((tile) => tile.render());
  }
  byId('alone').hidden = !(call?.state === 'joined' && call.peers.length === 0);
  renderTools();
  layOut();
}

function add(tile) {
  page.tiles.set(tile.name, tile);
  byId('grid').append(tile.root);
}

/** As large as all of them can be at once; on a narrow page one below the other. */
function layOut() {
  const grid = byId('grid');
  const count = Math.max(1, page.tiles.size);
  const { clientWidth: width, clientHeight: height } = grid;
  if (width === 0) {
    return;
  }
  const gap = 12;
  const narrow = width < 600;
  let best = 0;
  for (let columns = 1; columns <= (narrow ? 1 + Number(count > 4) : count); columns += 1) {
    const rows = Math.ceil(count / columns);
    const wide = (width - gap * (columns - 1)) / columns;
    const high = ((height - gap * (rows - 1)) / rows) * (16 / 9);
    const tile = Math.floor(narrow ? wide : Math.min(wide, Math.max(high, 160)));
    best = Math.max(best, tile);
  }
  grid.style.setProperty('--tile', `${best}px`);
}

function renderPill() {
  const [tone, text] = condition();
  byId('pill').dataset.tone = tone;
  setText(byId('pill-text'), text);
}

/** The state of the connection and of the media, in a few words. */
function condition() {
  const { call } = page;
  if (!call || call.state === 'left') {
    return ['idle', 'Not connected'];
  }
  if (call.state === 'ended') {
    return ['bad', 'Disconnected'];
  }
  if (call.state === 'joining') {
    return ['warn', 'Joining…'];
  }
  const { connection } = call;
  if (connection.state === 'lost') {
    const left = Math.max(0, Math.ceil((connection.graceEnds - Date.now()) / 1000));
    return ['warn', `Server lost, coming back (${left} s)`];
  }
  const media = ['send', 'recv'].map((direction) => call.mediaState(direction));
  if (media.includes('failed')) {
    return ['bad', 'No way for the media'];
  }
  if (media.includes('disconnected')) {
    return ['warn', 'Media interrupted'];
  }
  if (media.includes('connecting')) {
    return ['warn', 'Media connecting…'];
  }
  const people = call.peers.length + 1;
  return ['good', media.includes('connected') ? `Connected · ${people} here` : `In the room · ${people} here`];
}

function renderTools() {
  const producers = page.call?.state === 'joined' ? page.call.producers : {};
  for (const [kind, icon] of [
    ['audio', 'microphone'],
    ['video', 'camera'],
  ]) {
    const tool = byId(`tool-${kind}`);
    const producer = producers[kind];
    const state = !producer ? 'none' : producer.locallyPaused ? 'paused' : 'on';
    tool.dataset.state = state;
    tool.disabled = page.call?.state !== 'joined';
    setIcon(tool, state === 'on' ? icon : `${icon}-off`);
    tool.ariaPressed = String(state === 'paused');
    tool.ariaLabel = state === 'none' ? `Send your ${word(kind)}` : `Pause your ${word(kind)}`;
    tool.title = { none: `Send your ${word(kind)}`, paused: `Resume your ${word(kind)}`, on: `Pause your ${word(kind)}` }[state];
  }
}

function renderLevels(levels, speaker) {
  for (const [name, tile] of page.tiles) {
    tile.setLevel(levels.get(name) ?? 0, name === speaker);
  }
}

function renderNumbers(statistics) {
  page.tiles.forEach((tile) => tile.renderNumbers(statistics));
}

/** Something that has to be known, until it is over. */
function tell(text, button, action) {
  byId('notice').hidden = !text;
  setText(byId('notice-text'), text ?? '');
  const pressed = byId('notice-button');
  pressed.hidden = !button;
  pressed.textContent = button ?? '';
  pressed.onclick = action ?? null;
}

function announce(text) {
  record('note', { text });
  byId('announcer').textContent = text;
}

function record(what, details) {
  page.events.push({ at: Math.round(performance.now()), what, ...details });
  if (page.events.length > 1_000) {
    page.events.shift();
  }
}

/* What the controls do */

async function toggle(kind) {
  const producer = page.call?.producers[kind];
  if (!producer) {
    await send(kind);
  } else if (producer.locallyPaused) {
    producer.resume();
  } else {
    producer.pause();
  }
  renderSoon();
}

function toggleStatistics() {
  const on = byId('tool-statistics').ariaPressed !== 'true';
  byId('tool-statistics').ariaPressed = String(on);
  page.statistics?.turn(on);
  if (page.statistics) {
    renderNumbers(page.statistics);
  }
}

async function invite() {
  const button = document.activeElement;
  try {
    await navigator.clipboard.writeText(location.href);
    announce('The invitation is in the clipboard');
    const label = button?.querySelector('span') ?? button;
    const before = label.textContent;
    label.textContent = 'Copied';
    setTimeout(() => {
      label.textContent = before;
    }, 1_500);
  } catch {
    tell(`Invite with ${location.href}`, 'Done', () => tell(null));
  }
}

byId('tool-audio').addEventListener('click', () => toggle('audio'));
byId('tool-video').addEventListener('click', () => toggle('video'));
byId('tool-statistics').addEventListener('click', toggleStatistics);
byId('tool-link').addEventListener('click', invite);
byId('invite').addEventListener('click', invite);
byId('tool-leave').addEventListener('click', leave);

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest('input, select, textarea');
  if (typing || event.ctrlKey || event.altKey || event.metaKey || byId('controls').hidden) {
    return;
  }
  const tool = { m: 'tool-audio', v: 'tool-video', s: 'tool-statistics' }[event.key];
  if (tool) {
    byId(tool).click();
  }
});

// Browsers play nothing before the page was used.
byId('grid').addEventListener('silenced', () => {
  tell('The browser plays no sound before you click.', 'Play', () => {
    audioContext();
    document.querySelectorAll('audio').forEach((audio) => audio.play().catch(() => {}));
    tell(null);
  });
});

window.addEventListener('online', () => page.call?.connection?.hurry());
window.addEventListener('pagehide', () => page.call?.leave());
setInterval(renderPill, 1_000);
new ResizeObserver(layOut).observe(byId('grid'));

installHooks(page, { join: enter, leave, send, toggle, openTracks });
openDoor();
