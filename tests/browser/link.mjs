// The way from a page to the server: a TCP relay on loopback that can be cut, as networks are.

import { connect, createServer } from 'node:net';

export async function openLink(host, port) {
  const sockets = new Set();
  let up = true;
  const server = createServer((near) => {
    if (!up) {
      near.destroy();
      return;
    }
    const far = connect(port, host);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(one);
      one.setNoDelay(true);
      one.on('data', (bytes) => other.write(bytes));
      one.on('end', () => other.end());
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    /** Breaks what goes through it, and lets nothing through from now on. */
    cut() {
      up = false;
      sockets.forEach((socket) => socket.resetAndDestroy());
    },
    mend() {
      up = true;
    },
    close() {
      up = false;
      sockets.forEach((socket) => socket.destroy());
      server.close();
    },
  };
}
