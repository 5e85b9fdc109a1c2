// What both pages need of WHIP (RFC 9725) and WHEP: one request begins, one ends, and there is nothing else to say.

/// A session at `/whip/…` or `/whep/…`.
export class Session {
  constructor(connection, location, links) {
    this.connection = connection;
    this.location = location;
    this.links = links;
  }

  /// Offers what the connection is to send or receive, and takes the answer.
  static async begin(protocol, { room, peer, token }, connection) {
    await connection.setLocalDescription(await connection.createOffer());
    const path = [protocol, room, peer].filter(Boolean).map(encodeURIComponent).join('/');
    const headers = { 'content-type': 'application/sdp' };
    if (token) {
      headers.authorization = `Bearer ${token}`;
    }
    // Candidates of clients are not needed, so nothing is waited for.
    const body = connection.localDescription.sdp;
    const response = await fetch(`/${path}`, { method: 'POST', headers, body });
    const text = await response.text();
    if (!response.ok) {
      throw new Error(reason(response.status, text));
    }
    await connection.setRemoteDescription({ type: 'answer', sdp: text });
    return new Session(connection, response.headers.get('location'), linked(response.headers.get('link')));
  }

  async end() {
    this.connection.close();
    await fetch(this.location, { method: 'DELETE', keepalive: true }).catch(() => {});
  }
}

function reason(status, text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return `the server answers ${status}`;
  }
}

/// The URLs of extensions, by the last part of their names.
function linked(header) {
  const links = {};
  for (const [, url, name] of (header ?? '').matchAll(/<([^>]*)>; rel="urn:ietf:params:whep:ext:core:([^"]*)"/g)) {
    links[name] = url;
  }
  return links;
}

/// How much is sent or received, from one look to the next.
export class Numbers {
  #before = new Map();

  /// The streams of a type, `inbound-rtp` or `outbound-rtp`, with their bitrates since the last look; and the round trip in milliseconds.
  async look(connection, type) {
    const streams = [];
    let roundTrip = null;
    const reports = await connection.getStats();
    reports.forEach((report) => {
      if (report.type === 'candidate-pair' && report.nominated && report.currentRoundTripTime !== undefined) {
        roundTrip = report.currentRoundTripTime * 1000;
      }
      if (report.type !== type) {
        return;
      }
      const bytes = report.bytesSent ?? report.bytesReceived ?? 0;
      const before = this.#before.get(report.id);
      this.#before.set(report.id, { bytes, at: report.timestamp });
      const seconds = before && (report.timestamp - before.at) / 1000;
      streams.push({ ...report, bitrate: seconds > 0 ? ((bytes - before.bytes) * 8) / seconds : 0 });
    });
    return { streams, roundTrip };
  }
}

export function bits(rate) {
  return rate >= 999_500 ? `${(rate / 1e6).toFixed(2)} Mbit/s` : `${Math.round(rate / 1e3)} kbit/s`;
}

/// One line for each stream.
export function describe({ streams, roundTrip }) {
  const lines = streams.map(({ kind, rid, bitrate, frameWidth, frameHeight, framesPerSecond, packetsLost }) => {
    const size = frameWidth ? `${frameWidth}×${frameHeight}` : '';
    const pace = framesPerSecond ? `${Math.round(framesPerSecond)} fps` : '';
    const lost = packetsLost > 0 ? `${packetsLost} lost` : '';
    return [kind, rid, bits(bitrate), size, pace, lost].filter(Boolean).join('  ');
  });
  if (roundTrip !== null) {
    lines.push(`round trip  ${roundTrip.toFixed(roundTrip < 10 ? 1 : 0)} ms`);
  }
  return lines.join('\n');
}

/// Shows in what state the page is; `tone` is idle, busy, good or bad.
export function show(tone, text) {
  const pill = document.getElementById('state');
  pill.dataset.tone = tone;
  pill.textContent = text;
}

/// The token that an application has put into the fragment of the page's address (`#token=…`), which browsers send to nobody. It is taken
/// out of the address at once, so that it is neither in the history nor in a link that somebody copies.
function handedToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get('token');
  if (token === null) {
    return '';
  }
  fragment.delete('token');
  const rest = fragment.toString();
  history.replaceState(history.state, '', location.pathname + location.search + (rest && `#${rest}`));
  return token;
}

/// What stands in the form, with what the address says to begin with.
export function form() {
  const fields = document.getElementById('form').elements;
  const asked = new URLSearchParams(location.search);
  for (const name of ['room', 'peer']) {
    fields[name].value = asked.get(name) ?? fields[name].value;
  }
  fields.token.value = handedToken() || fields.token.value;
  return () => ({
    room: fields.room.value.trim(),
    peer: fields.peer.value.trim(),
    token: fields.token.value.trim(),
  });
}
