// Serves the page while it is worked on: dist/ from here, everything else from a running `weir serve`, through its control
// socket. `node serve.mjs SOCKET [PORT]`

import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [socketPath, port = '4080'] = process.argv.slice(2);
if (!socketPath) {
  console.error('usage: node serve.mjs SOCKET [PORT]');
  process.exit(2);
}
const dist = join(dirname(fileURLToPath(import.meta.url)), 'dist');
const files = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/demo/app.js': ['app.js', 'text/javascript; charset=utf-8'],
  '/demo/app.css': ['app.css', 'text/css; charset=utf-8'],
  '/demo/icon.svg': ['icon.svg', 'image/svg+xml'],
  '/demo/licenses.txt': ['licenses.txt', 'text/plain; charset=utf-8'],
};
const rooms = new Map();

function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method, path, headers: { 'content-type': 'application/json' } }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }));
    });
    asked.on('error', reject);
    asked.end(JSON.stringify(body ?? {}));
  });
}

const server = createServer(async (incoming, response) => {
  const { pathname } = new URL(incoming.url, 'http://localhost');
  const room = /^\/demo\/rooms\/([\w-]+)$/.exec(pathname)?.[1];
  if (incoming.method === 'POST' && room) {
    const known = rooms.get(room);
    if (!known || (await ask('GET', `/rooms/${known}`)).status !== 200) {
      rooms.set(room, (await ask('POST', '/rooms', { appData: { demo: room } })).body.id);
    }
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify({ id: rooms.get(room) }));
  }
  const [name, type] = files[pathname] ?? [];
  if (!name) {
    response.statusCode = 404;
    return response.end();
  }
  response.setHeader('content-type', type);
  response.end(await readFile(join(dist, name)));
});

server.on('upgrade', (incoming, socket, head) => {
  const upstream = connect(socketPath);
  // The origin is this server's, which weir does not know.
  const headers = Object.entries(incoming.headers).filter(([name]) => name !== 'origin');
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`);
  upstream.write(`GET ${incoming.url} HTTP/1.1\r\n${lines.join('')}\r\n`);
  upstream.write(head);
  socket.pipe(upstream).pipe(socket);
  socket.on('error', () => upstream.destroy());
  upstream.on('error', () => socket.destroy());
});

server.listen(Number(port), '127.0.0.1', () => console.log(`http://localhost:${port}`));
