// One stay in a room: the mediasoup client's objects, made, joined and thrown away together, over one connection.

import * as mediasoup from 'mediasoup-client';

import { CLOSE, Connection } from './connection.js';

/** For which media may be disconnected before ICE is restarted, in milliseconds. */
const RESTART_AFTER_MS = 2_500;

/** The number of the room of this name, which is made if nobody is in it yet. */
async function roomOf(name) {
  const response = await fetch(`/demo/rooms/${encodeURIComponent(name)}`, { method: 'POST' });
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    throw new Error(body?.error?.message ?? `the server says ${response.status}`);
  }
  return body.id;
}

/**
 * Events: `change` when anything that is shown may have changed, `peer` and `consumer` when there is a new one (as
 * `detail`), `note` with a sentence for the people, `end` when the call is over (`detail` has `code` and `reason`).
 */
export class Call extends EventTarget {
  #transports = {};
  #restarts = new Map();
  #ended = false;

  constructor({ room, name, token, simulcast }) {
    super();
    this.roomName = room;
    this.name = name;
    this.simulcast = simulcast;
    this.token = token;
    this.state = 'joining';
    this.room = null;
    this.connection = null;
    /** By kind. */
    this.producers = {};
  }

  async join() {
    const id = await roomOf(this.roomName);
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const url = `${scheme}://${location.host}/rooms/${id}/peers/${encodeURIComponent(this.name)}`;
    const connection = new Connection(url, this.token);
    this.connection = connection;
    connection.addEventListener('state', () => this.#connectionChanged());
    connection.addEventListener('notification', ({ detail }) => this.room?.receiveNotification(detail));
    await connection.open();

    const room = new mediasoup.Room({ requestTimeout: 30_000 });
    this.room = room;
    room.on('request', (request, callback, errback) => {
      connection.request(request).then(callback, errback);
    });
    room.on('notify', (notification) => connection.notify(notification));
    room.on('newpeer', (peer) => this.#meet(peer));
    room.on('close', (originator, appData) => {
      if (originator === 'remote') {
        const why = typeof appData === 'string' ? appData : appData?.reason;
        this.#end({ code: CLOSE.closed, reason: why || 'closed by the server' });
      }
    });
    try {
      const peers = await room.join(this.name, { page: 'weir demo' });
      this.state = 'joined';
      for (const direction of ['send', 'recv']) {
        this.#transports[direction] = this.#transport(direction);
      }
      peers.forEach((peer) => this.#meet(peer));
    } catch (error) {
      this.#ended = true;
      this.state = 'ended';
      this.#dispose();
      connection.close();
      throw error;
    }
    this.#changed();
  }

  /** Leaves in good order. */
  leave() {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.state = 'left';
    this.#disarm();
    this.room?.leave();
    this.connection?.close();
  }

  /** Sends a track: the first of its kind by a new producer, the next in place of the one before. */
  async produce(kind, track) {
    const before = this.producers[kind];
    if (before && !before.closed) {
      await before.replaceTrack(track);
      this.#changed();
      return before;
    }
    const simulcast = kind === 'video' && this.simulcast;
    const producer = this.room.createProducer(track, { simulcast }, { simulcast });
    this.producers[kind] = producer;
    for (const event of ['pause', 'resume', 'handled', 'unhandled']) {
      producer.on(event, (originator) => {
        if (originator === 'remote') {
          this.#note(`Your ${word(kind)} was ${event}d by the server`);
        }
        this.#changed();
      });
    }
    producer.on('close', (originator) => {
      if (originator === 'remote') {
        this.#note(`Your ${word(kind)} was closed by the server`);
      }
      if (this.producers[kind] === producer) {
        delete this.producers[kind];
      }
      this.#changed();
    });
    producer.on('trackended', () => {
      this.#note(`Your ${word(kind)} was unplugged`);
      producer.close();
    });
    try {
      await producer.send(this.transport('send'));
    } catch (error) {
      producer.close();
      throw error;
    }
    this.#changed();
    return producer;
  }

  /** The transport of a direction, anew if the server has closed it. */
  transport(direction) {
    const transport = this.#transports[direction];
    if (!transport || transport.closed) {
      this.#transports[direction] = this.#transport(direction);
    }
    return this.#transports[direction];
  }

  /** The browser's connection of a direction, which mediasoup-client keeps to itself. */
  peerConnection(direction) {
    return this.#transports[direction]?.handler?._pc ?? null;
  }

  /** `new`, `connecting`, `connected`, `disconnected`, `failed` or `closed`. */
  mediaState(direction) {
    return this.#transports[direction]?.connectionState ?? 'new';
  }

  get peers() {
    return this.room?.peers ?? [];
  }

  get consumers() {
    return this.peers.flatMap((peer) => peer.consumers);
  }

  #transport(direction) {
    const transport = this.room.createTransport(direction, { page: 'weir demo' });
    transport.on('connectionstatechange', (state) => {
      this.#changed();
      clearTimeout(this.#restarts.get(transport));
      if (state === 'disconnected' || state === 'failed') {
        const restart = () => {
          // Without a connection to the server there is nobody to agree with.
          if (this.connection.state === 'open' && !transport.closed) {
            transport.restartIce();
          } else {
            this.#restarts.set(transport, setTimeout(restart, RESTART_AFTER_MS));
          }
        };
        this.#restarts.set(transport, setTimeout(restart, RESTART_AFTER_MS));
      }
    });
    transport.on('close', () => this.#changed());
    return transport;
  }

  #meet(peer) {
    peer.on('newconsumer', (consumer) => this.#receive(consumer));
    peer.on('close', () => {
      this.#note(`${peer.name} has left`);
      this.#changed();
    });
    this.dispatchEvent(new CustomEvent('peer', { detail: peer }));
    peer.consumers.forEach((consumer) => this.#receive(consumer));
    this.#changed();
  }

  #receive(consumer) {
    for (const event of ['pause', 'resume', 'handled', 'unhandled', 'effectiveprofilechange', 'close']) {
      consumer.on(event, () => this.#changed());
    }
    this.dispatchEvent(new CustomEvent('consumer', { detail: consumer }));
    if (!consumer.supported) {
      this.#note(`This browser cannot play the ${word(consumer.kind)} of ${consumer.peer.name}`);
      return;
    }
    consumer.receive(this.transport('recv')).then(
      () => this.#changed(),
      (error) => {
        if (!consumer.closed && !this.#ended) {
          this.#note(`The ${word(consumer.kind)} of ${consumer.peer.name} cannot be received: ${error.message}`);
        }
      },
    );
  }

  #connectionChanged() {
    const { connection } = this;
    if (connection.state === 'gone' && this.state !== 'joining') {
      this.#end(connection.why);
    }
    this.#changed();
  }

  #end(why) {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    this.state = 'ended';
    this.#dispose();
    this.connection.close();
    this.dispatchEvent(new CustomEvent('end', { detail: why }));
    this.#changed();
  }

  #dispose() {
    this.#disarm();
    this.room?.remoteClose();
  }

  #disarm() {
    this.#restarts.forEach((timer) => clearTimeout(timer));
    this.#restarts.clear();
  }

  #note(text) {
    if (this.#ended) {
      // Everything goes with it; one word on that is enough.
      return;
    }
    this.dispatchEvent(new CustomEvent('note', { detail: text }));
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}

export function word(kind) {
  return kind === 'audio' ? 'sound' : 'picture';
}
