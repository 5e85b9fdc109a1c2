// A page in Chromium, with nothing but RTCPeerConnection and fetch: waits for a publisher by WHEP, publishes three layers by WHIP,
// restarts the publisher's ICE, publishes again in another session, which the player sees without another connection, and ends both.
// Each line of its output is JSON; the last one has `done`.
//
//     node whip.mjs CHROMIUM ADDRESS
//
// ADDRESS is the server's, e.g. 127.0.0.1:8080.

import { chromium } from 'playwright-core';

const [executablePath, address] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox',
    '--disable-dev-shm-usage',
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    '--allow-loopback-in-peer-connection',
    '--autoplay-policy=no-user-gesture-required',
  ],
});
const page = await browser.newPage();
await page.exposeFunction('say', say);
// Whatever it answers, it is a page of the server's own origin.
await page.goto(`http://${address}/whip/stage`);
await page.evaluate(async () => {
  const say = globalThis.say;

  async function open(url, connection) {
    await connection.setLocalDescription(await connection.createOffer());
    const headers = { 'content-type': 'application/sdp' };
    const response = await fetch(url, { method: 'POST', headers, body: connection.localDescription.sdp });
    const answer = await response.text();
    if (response.status !== 201) {
      throw new Error(`${url}: ${response.status} ${answer}`);
    }
    await connection.setRemoteDescription({ type: 'answer', sdp: answer });
    return { location: response.headers.get('location'), answer };
  }

  async function until(what, look) {
    for (let tries = 0; tries < 600; tries += 1) {
      const found = await look();
      if (found) {
        return found;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`waited in vain for ${what}`);
  }

  const decoded = async (connection) => {
    const stats = [...(await connection.getStats()).values()];
    const video = stats.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
    return { received: video?.framesDecoded ?? 0, width: video?.frameWidth ?? 0, ssrc: video?.ssrc };
  };

  const more = async (connection, what) => {
    const { received } = await decoded(connection);
    const report = await until(what, async () => {
      const now = await decoded(connection);
      return now.received >= received + 30 && now;
    });
    await say({ after: what, ...report });
  };

  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 1280, height: 720 } });
  const player = new RTCPeerConnection();
  player.addTransceiver('audio', { direction: 'recvonly' });
  player.addTransceiver('video', { direction: 'recvonly' });
  const states = [];
  player.addEventListener('connectionstatechange', () => states.push(player.connectionState));
  const watched = await open('/whep/stage', player);
  await until('the player', () => player.connectionState === 'connected');
  const layered = [{ rid: 'q', scaleResolutionDownBy: 4 }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'f' }];
  const publish = async (connection, sendEncodings) => {
    connection.addTransceiver(media.getAudioTracks()[0], { direction: 'sendonly', streams: [media] });
    connection.addTransceiver(media.getVideoTracks()[0], { direction: 'sendonly', streams: [media], sendEncodings });
    const published = await open('/whip/stage', connection);
    await until('the publisher', () => connection.connectionState === 'connected');
    return published;
  };
  const publisher = new RTCPeerConnection();
  const published = await publish(publisher, layered);
  await more(player, 'watching');
  const { ssrc } = await decoded(player);

  // As whip-whep does it: the old answer with the new credentials.
  await publisher.setLocalDescription(await publisher.createOffer({ iceRestart: true }));
  const of = (sdp, name) => new RegExp(`a=${name}:(.*)\r\n`).exec(sdp)[1];
  const own = publisher.localDescription.sdp;
  const response = await fetch(published.location, {
    method: 'PATCH',
    headers: { 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': '*' },
    body: `a=ice-ufrag:${of(own, 'ice-ufrag')}\r\na=ice-pwd:${of(own, 'ice-pwd')}\r\n`,
  });
  const fragment = await response.text();
  if (response.status !== 200) {
    throw new Error(`the restart: ${response.status} ${fragment}`);
  }
  const renewed = ['ice-ufrag', 'ice-pwd'].reduce(
    (sdp, name) => sdp.replaceAll(`a=${name}:${of(sdp, name)}`, `a=${name}:${of(fragment, name)}`),
    published.answer,
  );
  await publisher.setRemoteDescription({ type: 'answer', sdp: renewed });
  await more(player, 'the restart');

  const layers = [...(await publisher.getStats()).values()]
    .filter(({ type, kind, packetsSent }) => type === 'outbound-rtp' && kind === 'video' && packetsSent > 0)
    .map(({ rid }) => rid);
  const end = async (what, { location }) => {
    const ended = await fetch(location, { method: 'DELETE' });
    if (ended.status !== 200) {
      throw new Error(`the ${what}'s end: ${ended.status}`);
    }
  };
  await end('publisher', published);
  publisher.close();
  // An encoder that restarts: another connection, other numbers, one layer.
  const restarted = new RTCPeerConnection();
  const again = await publish(restarted, [{}]);
  await more(player, 'the other publisher');
  const now = await decoded(player);
  if (now.ssrc !== ssrc || states.filter((state) => state === 'connected').length !== 1) {
    throw new Error(`another stream or connection: ${ssrc}, ${now.ssrc}, ${states}`);
  }
  await end('player', watched);
  await end('publisher', again);
  await say({ done: true, layers });
});
await browser.close();
