// A `weir serve` of its own for a play, with a control socket that nobody else has.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Where its media is if it has an IPv6 address, so that what it sends can be told from what others send. */
export const MEDIA_PORTS = '20000-20999';

/** Starts it, with media on this IPv4 address and this IPv6 one or `off` and further options, and resolves when it is ready. */
export async function serve(program, media, media6, further) {
  const folder = await mkdtemp(join(tmpdir(), 'weir-browser-'));
  const control = join(folder, 'weir.sock');
  const addresses = ['--rtc-ipv4', media, '--rtc-ipv6', media6, ...(media6 === 'off' ? [] : ['--rtc-ports', MEDIA_PORTS])];
  const options = ['--workers', '2', ...addresses, '--start-timeout', '60s', '--ping-timeout', '60s', ...further];
  const child = spawn(program, ['serve', ...options, '--control', control, '--demo-page', '127.0.0.1:0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // However this program ends, the server does not outlive it.
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const lines = createInterface({ input: child.stdout });
  const ready = new Promise((resolve) => lines.once('line', resolve));
  const line = await Promise.race([ready, ended.then(({ code }) => `it ended with ${code}`)]);
  const page = /http:\/\/[^\s,]+/.exec(line)?.[0];
  if (!page) {
    throw new Error(`${program} does not serve: ${line}`);
  }
  return {
    page,
    control,
    ended,
    terminate: () => child.kill('SIGTERM'),
    /** Ends it, if it has not ended yet. */
    async stop() {
      child.kill('SIGTERM');
      await ended;
      process.off('exit', kill);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
