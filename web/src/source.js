// Where one's own picture and sound come from: devices, or a drawing and a tone for those who have none or want none.

/** The drawing: its size, and its frames a second. */
const SMALL = { width: 640, height: 360, frameRate: 20 };

/** The same to be sent in three qualities: of what is smaller Chromium makes no more than two. */
const LARGE = { width: 960, height: 540, frameRate: 15 };

/** Seconds that the tone is on, and off. */
const TONE_ON = 1.2;
const TONE_OFF = 1.6;

/** A number from 0 to 1 that is always the same for the same name. */
export function fraction(name) {
  let hash = 2166136261;
  for (const character of name) {
    hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  }
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

/** The colour that stands for a name, in degrees. */
export function hue(name) {
  return Math.round(fraction(name) * 360);
}

let context = null;

/** The page's one audio context. Browsers let it run once the page has been clicked or typed into. */
export function audioContext() {
  context ??= new AudioContext();
  if (context.state === 'suspended') {
    context.resume().catch(() => {});
  }
  return context;
}

/**
 * Tracks to send, `audio` and `video`, each of which may be missing. `generated` says whether they are made up, `stop()`
 * lets go of what they come from.
 */
export async function openSource({ name, audio, video, generated, simulcast }) {
  if (!audio && !video) {
    return { generated, tracks: {}, stop() {} };
  }
  if (generated) {
    return generate({ name, audio, video, simulcast });
  }
  const media = navigator.mediaDevices;
  if (!media) {
    throw new Error('browsers show cameras only to pages of https or localhost');
  }
  const wanted = {
    audio: audio && { echoCancellation: true, noiseSuppression: true },
    video: video && { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
  };
  const stream = await media.getUserMedia(wanted);
  const [audioTrack] = stream.getAudioTracks();
  const [videoTrack] = stream.getVideoTracks();
  return {
    generated: false,
    tracks: { audio: audioTrack, video: videoTrack },
    stop() {
      stream.getTracks().forEach((track) => track.stop());
    },
  };
}

/** Whether this machine has a camera or a microphone that the page could ask for. */
export async function hasDevices() {
  const devices = await navigator.mediaDevices?.enumerateDevices().catch(() => []);
  return Boolean(devices?.some(({ kind }) => kind === 'videoinput' || kind === 'audioinput'));
}

function generate({ name, audio, video, simulcast }) {
  const parts = [];
  const tracks = {};
  if (video) {
    const picture = draw(name, simulcast ? LARGE : SMALL);
    parts.push(picture);
    tracks.video = picture.track;
  }
  if (audio) {
    const tone = sound(name);
    parts.push(tone);
    tracks.audio = tone.track;
  }
  return {
    generated: true,
    tracks,
    stop() {
      parts.forEach((part) => part.stop());
    },
  };
}

/** A picture in which every frame differs from the one before: hills that drift, a clock, the name. */
function draw(name, { width, height, frameRate }) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext('2d', { alpha: false });
  const colour = hue(name);
  const begun = performance.now();
  let frames = 0;

  const paint = () => {
    const seconds = (performance.now() - begun) / 1000;
    const sky = pen.createLinearGradient(0, 0, 0, height);
    sky.addColorStop(0, `hsl(${colour} 55% 24%)`);
    sky.addColorStop(1, `hsl(${colour} 60% 52%)`);
    pen.fillStyle = sky;
    pen.fillRect(0, 0, width, height);

    pen.fillStyle = `hsl(${(colour + 40) % 360} 90% 72%)`;
    const angle = seconds * 0.5;
    pen.beginPath();
    pen.arc(width * (0.5 + 0.36 * Math.cos(angle)), height * (0.36 + 0.16 * Math.sin(angle)), height / 14, 0, 2 * Math.PI);
    pen.fill();

    for (let wave = 0; wave < 4; wave += 1) {
      const base = height * (0.62 + wave * 0.1);
      pen.fillStyle = `hsl(${(colour + wave * 9) % 360} 58% ${40 - wave * 8}%)`;
      pen.beginPath();
      pen.moveTo(0, height);
      for (let x = 0; x <= width; x += 16) {
        const phase = x / (64 + wave * 22) + seconds * (0.5 + wave * 0.35) * (wave % 2 ? -1 : 1);
        pen.lineTo(x, base + Math.sin(phase) * (16 - wave * 2) + Math.sin(phase * 2.3) * 5);
      }
      pen.lineTo(width, height);
      pen.fill();
    }

    pen.fillStyle = 'rgb(255 255 255 / 0.94)';
    pen.textAlign = 'center';
    pen.textBaseline = 'middle';
    pen.font = `600 ${height / 7}px system-ui, sans-serif`;
    pen.fillText(name.slice(0, 16), width / 2, height * 0.46);
    pen.font = `400 ${height / 16}px ui-monospace, monospace`;
    frames += 1;
    pen.fillText(`${clock(seconds)}  #${frames}`, width / 2, height * 0.61);
  };

  paint();
  const [track] = canvas.captureStream(frameRate).getVideoTracks();
  track.contentHint = 'motion';
  const timer = setInterval(paint, 1000 / frameRate);
  return {
    track,
    stop() {
      clearInterval(timer);
      track.stop();
    },
  };
}

function clock(seconds) {
  const two = (number) => String(Math.floor(number)).padStart(2, '0');
  return `${two(seconds / 60)}:${two(seconds % 60)}.${Math.floor((seconds * 10) % 10)}`;
}

/** A soft tone that comes and goes, at a pitch and a pace of the name's own. */
function sound(name) {
  const context = audioContext();
  const share = fraction(name);
  const oscillator = context.createOscillator();
  oscillator.type = 'triangle';
  // One of an octave of a pentatonic scale, so that several together do not hurt.
  const steps = [0, 2, 4, 7, 9, 12];
  oscillator.frequency.value = 220 * 2 ** (steps[Math.floor(share * steps.length)] / 12);
  const gain = context.createGain();
  gain.gain.value = 0;
  const out = context.createMediaStreamDestination();
  oscillator.connect(gain).connect(out);
  oscillator.start();

  const period = TONE_ON + TONE_OFF * (0.75 + share / 2);
  let next = context.currentTime + share * period;
  const schedule = () => {
    while (next < context.currentTime + 2) {
      const at = Math.max(next, context.currentTime);
      gain.gain.setTargetAtTime(0.32, at, 0.04);
      gain.gain.setTargetAtTime(0, at + TONE_ON, 0.08);
      next = at + period;
    }
  };
  schedule();
  const timer = setInterval(schedule, 500);
  const [track] = out.stream.getAudioTracks();
  return {
    track,
    stop() {
      clearInterval(timer);
      oscillator.stop();
      track.stop();
    },
  };
}
