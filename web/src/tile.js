// One person on the page: the picture, the sound, what is known about both, and what one can do about them.

import { bitrate, milliseconds, percent } from './statistics.js';
import { hue } from './source.js';

const PROFILES = [
  ['default', 'Best'],
  ['low', 'Low'],
  ['medium', 'Medium'],
  ['high', 'High'],
];

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return svg;
}

/** Changes an icon that is there already. */
export function setIcon(holder, name) {
  holder.querySelector('use').setAttribute('href', `#i-${name}`);
}

/** Writes a text only where it differs, so that nothing is read out twice. */
export function setText(holder, text) {
  if (holder.textContent !== text) {
    holder.textContent = text;
  }
}

/** What all tiles have. */
class Tile {
  constructor(name) {
    this.name = name;
    this.video = element('video', { autoplay: true, muted: true, playsInline: true });
    // A picture of somebody is named by its caption.
    this.video.setAttribute('aria-hidden', 'true');
    this.avatar = element('span', { className: 'avatar', ariaHidden: 'true' }, initials(name));
    this.why = element('span', { className: 'why' });
    this.blank = element('div', { className: 'blank' }, this.avatar, this.why);
    this.numbers = element('pre', { className: 'numbers', hidden: true });
    this.badges = element('span', { className: 'badges' });
    this.label = element('span', { className: 'name' }, name);
    this.caption = element('p', { className: 'caption' }, this.label, this.badges);
    this.tools = element('div', { className: 'tools' });
    this.root = element(
      'li',
      { className: 'tile' },
      this.video,
      this.blank,
      this.numbers,
      this.caption,
      this.tools,
    );
    this.root.dataset.peer = name;
    this.root.style.setProperty('--hue', hue(name));
  }

  setLevel(level, speaking) {
    this.root.style.setProperty('--level', Math.min(1, level * 2.2).toFixed(3));
    this.root.classList.toggle('speaking', speaking);
  }

  /** Shows a track, or says why there is none to see. */
  show(track, why) {
    const shown = this.video.srcObject?.getVideoTracks()[0] ?? null;
    if (shown !== track) {
      this.video.srcObject = track ? new MediaStream([track]) : null;
    }
    this.root.classList.toggle('dark', Boolean(why));
    setText(this.why, why ?? '');
  }

  setBadges(badges) {
    const text = badges.join('\n');
    if (this.badges.dataset.shown !== text) {
      this.badges.dataset.shown = text;
      this.badges.replaceChildren(...badges.map((badge) => element('span', { className: 'badge' }, badge)));
    }
  }

  setNumbers(lines) {
    this.numbers.hidden = lines.length === 0;
    setText(this.numbers, lines.join('\n'));
  }

  remove() {
    this.video.srcObject = null;
    this.root.remove();
  }
}

/** Oneself. */
export class OwnTile extends Tile {
  constructor(call) {
    super(call.name);
    this.call = call;
    this.root.classList.add('own');
    this.label.append(element('small', {}, ' (you)'));
    this.render();
  }

  render() {
    const { audio, video } = this.call.producers;
    this.show(video?.track ?? null, video ? pausedBy(video, 'you', 'the server') : 'You send no picture');
    const badges = [];
    if (!audio) {
      badges.push('no sound');
    } else if (audio.paused) {
      badges.push(audio.remotelyPaused ? 'sound paused by the server' : 'sound off');
    }
    this.setBadges(badges);
  }

  renderNumbers(statistics) {
    if (!statistics.on) {
      return this.setNumbers([]);
    }
    const { send, rttMs } = statistics.rates;
    const lines = [];
    for (const [kind, title] of [
      ['video', 'picture'],
      ['audio', 'sound  '],
    ]) {
      const sent = send[kind];
      if (sent && this.call.producers[kind]) {
        const lost = sent.fractionLost === undefined ? '' : ` · ${percent(sent.fractionLost)} lost`;
        lines.push(`${title} ${bitrate(sent.bitrate)}${lost}`);
        const layers = sent.streams.filter(({ frameWidth }) => frameWidth);
        if (layers.length > 0) {
          const shown = layers.map(({ frameWidth, frameHeight, framesPerSecond }) =>
            `${frameWidth}×${frameHeight}@${Math.round(framesPerSecond ?? 0)}`);
          lines.push(`        ${[...new Set(shown)].join(' ')}${layers.length > 1 ? ` · ${layers.length} streams` : ''}`);
        }
      }
    }
    lines.push(`RTT     ${milliseconds(rttMs.send ?? NaN)}`);
    this.setNumbers(lines);
  }
}

/** Somebody else. */
export class PeerTile extends Tile {
  /** By kind. */
  #consumers = {};
  #chosen;

  constructor(peer) {
    super(peer.name);
    this.peer = peer;
    this.audio = element('audio', { autoplay: true });
    this.buttons = {};
    for (const kind of ['audio', 'video']) {
      const button = element('button', { type: 'button', className: 'small round', hidden: true }, icon('camera'));
      button.addEventListener('click', () => {
        const consumer = this.#consumers[kind];
        if (consumer?.locallyPaused) {
          consumer.resume();
        } else {
          consumer?.pause();
        }
      });
      this.buttons[kind] = button;
    }
    const options = PROFILES.map(([value, text]) => element('option', { value }, text));
    this.#chosen = element('select', { className: 'small', hidden: true }, ...options);
    this.#chosen.setAttribute('aria-label', `Quality of the picture of ${peer.name}`);
    this.#chosen.addEventListener('change', () => {
      this.#consumers.video?.setPreferredProfile(this.#chosen.value);
      this.render();
    });
    this.tools.append(this.buttons.audio, this.buttons.video, this.#chosen);
    this.root.append(this.audio);
    this.render();
  }

  render() {
    for (const kind of ['audio', 'video']) {
      // Who sends anew has two for a moment.
      this.#consumers[kind] = this.peer.consumers.filter((consumer) => consumer.kind === kind).at(-1);
    }
    const { audio, video } = this.#consumers;
    this.show(video?.track ?? null, this.#whyDark(video));
    this.#play(audio?.track ?? null);

    const badges = [];
    if (!audio) {
      badges.push('no sound');
    } else if (audio.remotelyPaused) {
      badges.push('sound off');
    } else if (audio.locallyPaused) {
      badges.push('not heard by you');
    }
    if (video?.effectiveProfile && video.effectiveProfile !== 'default' && video.effectiveProfile !== 'none') {
      badges.push(video.effectiveProfile);
    }
    this.setBadges(badges);

    for (const [kind, word, [on, off]] of [
      ['audio', 'sound', ['speaker', 'speaker-off']],
      ['video', 'picture', ['camera', 'camera-off']],
    ]) {
      const consumer = this.#consumers[kind];
      const button = this.buttons[kind];
      button.hidden = !consumer;
      if (consumer) {
        const paused = consumer.locallyPaused;
        setIcon(button, paused ? off : on);
        button.ariaPressed = String(paused);
        button.title = `${paused ? 'Receive' : 'Pause'} the ${word}`;
        button.ariaLabel = `Pause the ${word} of ${this.peer.name}`;
      }
    }
    this.#chosen.hidden = !video;
    if (video) {
      const layered = video.appData?.simulcast === true;
      this.#chosen.disabled = !layered;
      this.#chosen.title = layered ? 'The best quality to receive' : 'Sent in one quality';
      this.#chosen.value = video.preferredProfile;
    }
  }

  renderNumbers(statistics) {
    if (!statistics.on) {
      return this.setNumbers([]);
    }
    const { recv, rttMs } = statistics.rates;
    const lines = [];
    for (const [kind, title] of [
      ['video', 'picture'],
      ['audio', 'sound  '],
    ]) {
      const consumer = this.#consumers[kind];
      const received = recv[consumer?.id];
      if (!received) {
        continue;
      }
      lines.push(`${title} ${bitrate(received.bitrate)} · ${percent(received.lossShare)} lost`);
      if (kind === 'video') {
        const { frameWidth, frameHeight, framesPerSecond } = received;
        const size = frameWidth ? `${frameWidth}×${frameHeight}@${Math.round(framesPerSecond ?? 0)} · ` : '';
        lines.push(`        ${size}${consumer.effectiveProfile ?? 'no profile yet'}`);
      }
      const sent = statistics.server(consumer.id)?.find(({ type }) => type === 'outbound-rtp');
      if (sent) {
        const round = sent.roundTripTime > 0 ? ` · RTT ${milliseconds(sent.roundTripTime)}` : '';
        lines.push(`server  ${bitrate(sent.bitrate)}${round}`);
      }
    }
    lines.push(`RTT     ${milliseconds(rttMs.recv ?? NaN)}`);
    this.setNumbers(lines);
  }

  remove() {
    this.audio.srcObject = null;
    super.remove();
  }

  #whyDark(video) {
    if (!video) {
      return 'No picture';
    }
    if (!video.supported) {
      return 'This browser cannot play it';
    }
    return pausedBy(video, 'you', `${this.peer.name} or the server`) ?? (video.track ? null : 'On its way');
  }

  #play(track) {
    const played = this.audio.srcObject?.getAudioTracks()[0] ?? null;
    if (played === track) {
      return;
    }
    this.audio.srcObject = track ? new MediaStream([track]) : null;
    if (track) {
      this.audio.play().catch((error) => {
        if (error.name === 'NotAllowedError') {
          this.root.dispatchEvent(new CustomEvent('silenced', { bubbles: true }));
        }
      });
    }
  }
}

/** Who has paused a producer or a consumer, or null. */
function pausedBy(it, here, there) {
  const by = [it.locallyPaused && here, it.remotelyPaused && there].filter(Boolean);
  return by.length > 0 ? `Paused by ${by.join(' and ')}` : null;
}

function initials(name) {
  const words = name.trim().split(/[\s_-]+/);
  return words
    .slice(0, 2)
    .map((word) => [...word][0] ?? '')
    .join('')
    .toUpperCase();
}
