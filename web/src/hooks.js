// What tests look at and do beyond what people can: `window.__weir`, described in web/README.md.

import { bitrate, snapshot } from './statistics.js';
import { openSource } from './source.js';

export function installHooks(page, actions) {
  const consumer = (id) => {
    const found = page.call.consumers.find((one) => one.id === id);
    if (!found) {
      throw new Error(`there is no consumer ${id}`);
    }
    return found;
  };
  const producer = (kind) => {
    const found = page.call.producers[kind];
    if (!found) {
      throw new Error(`nothing of kind ${kind} is sent`);
    }
    return found;
  };

  window.__weir = {
    ...actions,

    get call() {
      return page.call;
    },

    get events() {
      return page.events;
    },

    state() {
      const { call } = page;
      if (!call) {
        return { state: 'idle' };
      }
      return {
        state: call.state,
        name: call.name,
        room: call.roomName,
        connection: call.connection?.state ?? null,
        resumed: call.connection?.resumed ?? 0,
        media: { send: call.mediaState('send'), recv: call.mediaState('recv') },
        producers: Object.fromEntries(Object.entries(call.producers).map(([kind, one]) => [kind, sent(one)])),
        peers: call.peers.map(({ name, consumers }) => ({ name, consumers: consumers.map(received) })),
        speaker: page.levels?.speaker ?? null,
        levels: Object.fromEntries(page.levels?.all ?? []),
        notice: document.getElementById('notice').hidden ? null : document.getElementById('notice-text').textContent,
        pill: document.getElementById('pill-text').textContent,
      };
    },

    stats() {
      return snapshot(page.call);
    },

    shownRates() {
      const { rates } = page.statistics;
      return JSON.parse(JSON.stringify(rates, (key, value) => (key === 'bitrate' ? bitrate(value) : value)));
    },

    serverStats(id) {
      return page.statistics.server(id);
    },

    pauseProducer: (kind) => producer(kind).pause(),
    resumeProducer: (kind) => producer(kind).resume(),
    closeProducer: (kind) => producer(kind).close(),
    pauseConsumer: (id) => consumer(id).pause(),
    resumeConsumer: (id) => consumer(id).resume(),
    prefer: (id, profile) => consumer(id).setPreferredProfile(profile),
    restartIce: () => page.call.room.restartIce(),
    dropSocket: () => page.call.connection.drop(),

    /** Sends the drawing (or the tone) that belongs to another name instead. */
    async replaceTrack(kind, name) {
      const source = await openSource({ name, audio: kind === 'audio', video: kind === 'video', generated: true });
      await producer(kind).replaceTrack(source.tracks[kind]);
    },

    iceUfrag(direction) {
      const { localDescription, remoteDescription } = page.call.peerConnection(direction);
      const of = (description) => /a=ice-ufrag:(\S+)/.exec(description?.sdp ?? '')?.[1] ?? null;
      return { local: of(localDescription), remote: of(remoteDescription) };
    },

    sdp(direction) {
      const { localDescription, remoteDescription } = page.call.peerConnection(direction);
      return { local: localDescription?.sdp, remote: remoteDescription?.sdp };
    },

    /** The colour at a point of the picture of somebody, from 0 to 1 in each direction: red, green, blue. */
    colour(name, x = 0.5, y = 0.04) {
      const { video } = page.tiles.get(name);
      const canvas = document.createElement('canvas');
      canvas.width = canvas.height = 1;
      const pen = canvas.getContext('2d');
      pen.drawImage(video, video.videoWidth * x, video.videoHeight * y, 1, 1, 0, 0, 1, 1);
      return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    },
  };
}

function sent(one) {
  const { id, closed, locallyPaused, remotelyPaused, track } = one;
  return { id, closed, locallyPaused, remotelyPaused, enabled: track?.enabled ?? null, readyState: track?.readyState ?? null };
}

function received(one) {
  const { id, kind, supported, locallyPaused, remotelyPaused, preferredProfile, effectiveProfile, track } = one;
  return {
    id,
    kind,
    supported,
    handled: Boolean(one.transport),
    locallyPaused,
    remotelyPaused,
    preferredProfile,
    effectiveProfile,
    enabled: track?.enabled ?? null,
    readyState: track?.readyState ?? null,
  };
}
