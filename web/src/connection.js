// One client's WebSocket to the server, which outlives the sockets it is spoken on: when one is lost within the server's
// grace period, the next takes up where it ended. docs/protocol.md describes what is said.

/** For which a socket may take to open, and a heartbeat to be answered, in milliseconds. */
const PATIENCE_MS = 5_000;

/** How often to ask something when nothing else is heard, in milliseconds. Pings of the server are not shown to pages. */
const HEARTBEAT_MS = 5_000;

/** Between attempts to come back, in milliseconds; the last one is used again and again. */
const BACK_OFF_MS = [0, 250, 500, 1_000];

/** The server's close codes after which the session is over. */
export const CLOSE = {
  notText: 1003,
  malformed: 1007,
  left: 4000,
  takenOver: 4001,
  closed: 4002,
  notJoined: 4003,
  tooSlow: 4004,
  missedTooMuch: 4005,
};

const FINAL = new Set(Object.values(CLOSE));

/** Said of a socket that is given up: 1000, 1001 or no code would be the end of the session, which goes on. */
const BACK_SOON = 4100;

/** The server's answer to a request, when it is no. */
export class RequestError extends Error {
  constructor({ errorCode, errorName, errorReason }) {
    // The reason begins with the name, as an error of v2 does when it is printed.
    super((errorReason ?? `error ${errorCode}`).replace(`${errorName}: `, ''));
    this.name = errorName || 'Error';
    this.code = errorCode;
  }
}

/**
 * Events: `state` whenever `state` changes, `notification` with the mediasoup notification as `detail`.
 *
 * States: `connecting`, `open`, `lost` (trying to come back, until `graceEnds`), `gone` (`why` says how it ended).
 */
export class Connection extends EventTarget {
  #url;
  #protocols;
  #socket = null;
  #nextId = 1;
  /** Requests under way, by their numbers. */
  #pending = new Map();
  /** What was said while there was no socket. */
  #outbox = [];
  /** The number of the last message from the server. */
  #seq;
  #session = null;
  #resuming = null;
  #attempt = 0;
  #timer = 0;
  #heartbeat = 0;
  #heard = 0;
  #opened = null;

  constructor(url, token) {
    super();
    this.#url = url;
    this.#protocols = token ? ['protoo', `bearer.${token}`] : ['protoo'];
    this.state = 'connecting';
    this.why = null;
    this.lostAt = 0;
    /** How often it came back. */
    this.resumed = 0;
    this.requestRttMs = null;
  }

  /** Resolves when the first socket is open. */
  open() {
    return new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
      this.#dial();
    });
  }

  /** The answer to a mediasoup request. */
  request(data) {
    if (this.state === 'gone') {
      return Promise.reject(new Error('the connection is closed'));
    }
    const begun = performance.now();
    return this.#ask('mediasoup-request', data).then((answer) => {
      this.requestRttMs = performance.now() - begun;
      return answer;
    });
  }

  /** Sends a mediasoup notification. */
  notify(data) {
    this.#say({ notification: true, method: 'mediasoup-notification', data });
  }

  /** Ends it; nothing is told to the server but that. */
  close() {
    this.#end({ code: CLOSE.left, reason: 'this page has left' });
  }

  /** Loses the socket, as a network does. For tests. */
  drop() {
    this.#lose(this.#socket, 'dropped by a test');
  }

  /** When the server lets the peer go, if it is not back before. */
  get graceEnds() {
    return this.lostAt + (this.#session?.graceMs ?? 0);
  }

  /** Tries to come back now. */
  hurry() {
    if (this.state === 'lost' && !this.#socket) {
      clearTimeout(this.#timer);
      this.#dial();
    }
  }

  #become(state, why = null) {
    if (this.state === state) {
      return;
    }
    this.state = state;
    this.why = why;
    this.dispatchEvent(new Event('state'));
  }

  #dial() {
    const socket = new WebSocket(this.#url, this.#protocols);
    this.#socket = socket;
    const impatience = setTimeout(() => this.#lose(socket, 'it did not open in time'), PATIENCE_MS);
    socket.onopen = () => {
      clearTimeout(impatience);
      this.#heard = performance.now();
      if (this.#session) {
        const id = this.#nextId++;
        this.#resuming = id;
        const data = { token: this.#session.token, seq: this.#seq };
        socket.send(JSON.stringify({ request: true, id, method: 'weir-resume', data }));
      } else {
        this.#ready();
        this.#opened?.resolve();
      }
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) {
        this.#heard = performance.now();
        this.#hear(JSON.parse(data));
      }
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(impatience);
      if (socket !== this.#socket) {
        return;
      }
      if (FINAL.has(code)) {
        this.#socket = null;
        this.#end({ code, reason });
      } else {
        this.#lose(socket, reason || `the connection broke (${code})`);
      }
    };
  }

  /** What can be said now is said. */
  #ready() {
    this.#attempt = 0;
    this.#become('open');
    const outbox = this.#outbox.splice(0);
    for (const message of outbox) {
      this.#say(message);
    }
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => this.#beat(), HEARTBEAT_MS);
  }

  #beat() {
    const silence = performance.now() - this.#heard;
    if (silence > HEARTBEAT_MS + PATIENCE_MS) {
      this.#lose(this.#socket, 'the server is silent');
    } else if (silence > HEARTBEAT_MS / 2) {
      this.request({ method: 'queryRoom', target: 'room' }).catch(() => {});
    }
  }

  #lose(socket, reason) {
    if (!socket || socket !== this.#socket || this.state === 'gone') {
      return;
    }
    this.#socket = null;
    this.#resuming = null;
    clearInterval(this.#heartbeat);
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(BACK_SOON, reason);
    if (!this.#session) {
      return this.#end({ code: 1006, reason });
    }
    if (this.state !== 'lost') {
      this.lostAt = Date.now();
      this.#become('lost', { code: 1006, reason });
    }
    if (Date.now() > this.graceEnds) {
      return this.#end({ code: CLOSE.notJoined, reason: 'the server could not be reached in time' });
    }
    const wait = BACK_OFF_MS[Math.min(this.#attempt++, BACK_OFF_MS.length - 1)];
    this.#timer = setTimeout(() => this.#dial(), wait);
  }

  #end(why) {
    if (this.state === 'gone') {
      return;
    }
    clearTimeout(this.#timer);
    clearInterval(this.#heartbeat);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(1000);
    }
    const error = new Error(why.reason || 'the connection is closed');
    for (const { reject } of this.#pending.values()) {
      reject(error);
    }
    this.#pending.clear();
    this.#outbox.length = 0;
    this.#become('gone', why);
    this.#opened?.reject(error);
  }

  #ask(method, data) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#say({ request: true, id, method, data });
    });
  }

  #say(message) {
    if (this.state === 'open') {
      this.#socket.send(JSON.stringify(message));
    } else if (this.state !== 'gone') {
      this.#outbox.push(message);
    }
  }

  #hear(message) {
    if (message.response && message.id === this.#resuming) {
      this.#resuming = null;
      if (message.ok) {
        this.resumed += 1;
        this.#ready();
      } else {
        this.#end({ code: CLOSE.notJoined, reason: message.errorReason });
      }
      return;
    }
    if (typeof message.seq === 'number') {
      if (message.seq <= (this.#seq ?? 0)) {
        // It came on the old socket already.
        return;
      }
      this.#seq = message.seq;
    }
    if (message.response) {
      const pending = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if (message.ok) {
        pending?.resolve(message.data);
      } else {
        pending?.reject(new RequestError(message));
      }
    } else if (message.method === 'weir-session') {
      const { resumeToken, graceMs } = message.data;
      this.#session = { token: resumeToken, graceMs };
    } else if (message.method === 'mediasoup-notification') {
      this.dispatchEvent(new CustomEvent('notification', { detail: message.data }));
    }
  }
}
