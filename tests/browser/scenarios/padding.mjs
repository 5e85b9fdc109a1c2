// The server pads packets of a frame that differ by a few bytes (`equalize_packets`): browsers decode on, in every codec.

import { check, until } from '../stage.mjs';

/** Frames that must be decoded of a stream with padding. */
const FRAMES = 60;

/** Packets of them that must be padded. */
const PADDED = 10;

/** Of AV1 it fills packets one after the other, so those of a frame are not nearly equal, and nothing is padded. */
export const paddedInChromium = (play) => padded(['VP8', 'VP9', 'H264'], 'chromium', play);

/** Debian's Firefox brings no encoder for the others. */
export const firefoxPadded = (play) => padded(['VP8', 'VP9'], 'firefox', play);

async function padded(codecs, browser, { stage, control, room, step }) {
  const { items: workers } = await control.ask('GET', '/workers');
  const total = async () => {
    const stats = await Promise.all(workers.map(({ id }) => control.ask('GET', `/workers/${id}/stats`)));
    return stats.reduce((sum, { packetsPadded }) => sum + packetsPadded, 0);
  };
  for (const codec of codecs) {
    const [sender, viewer] = [`Ana${codec}`, `Ben${codec}`];
    const ana = await stage.enter(sender, { browser, codec, fake: false, send: 'video' });
    const ben = await stage.enter(viewer, { browser, send: 'none' });
    await ben.perceives(sender, 'video', 10);
    const { id: producer } = await control.producer(room, sender, 'video');
    const { rtpParameters } = await control.ask('GET', `/producers/${producer}`);
    const { mimeType } = rtpParameters.codecs[0];
    check(mimeType.toLowerCase() === `video/${codec}`.toLowerCase(), `${codec} is sent as ${mimeType}`);
    const [before, { id }] = [await total(), await ben.consumerOf(sender, 'video')];
    const requests = async () => (await control.stream(id, 'outbound-rtp')).pliCount;
    const asked = await requests();
    await ben.perceives(sender, 'video', FRAMES);
    const more = await until(`packets of ${codec} to be padded`, async () => {
      const now = (await total()) - before;
      return now >= PADDED && now;
    });
    check((await requests()) === asked, `the viewer of ${codec} asks for key frames`);
    step(`${codec}: ${FRAMES} frames decoded while ${more} packets were padded`);
    await Promise.all([ana.leave(), ben.leave()]);
  }
}
