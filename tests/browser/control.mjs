// The server's side: its control interface, on its Unix socket.

import { request } from 'node:http';

export class Control {
  constructor(socketPath) {
    this.socketPath = socketPath;
  }

  ask(method, path, body) {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? '' : JSON.stringify(body);
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
      const asked = request({ socketPath: this.socketPath, method, path, headers }, (response) => {
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (chunk) => (answer += chunk));
        response.on('end', () => {
          const parsed = answer ? JSON.parse(answer) : null;
          if (response.statusCode >= 300) {
            reject(new Error(`${method} ${path}: ${response.statusCode} ${parsed?.error?.message}`));
          } else {
            resolve(parsed);
          }
        });
      });
      asked.on('error', reject);
      asked.end(text);
    });
  }

  /** The number of the room that the page calls by this name. */
  async room(name) {
    const { items } = await this.ask('GET', '/rooms');
    const found = items.find(({ appData }) => appData?.demo === name);
    if (!found) {
      throw new Error(`the server has no room ${name}`);
    }
    return found.id;
  }

  async producer(room, peer, kind) {
    const { items } = await this.ask('GET', `/producers?room=${await this.room(room)}&peer=${encodeURIComponent(peer)}`);
    const found = items.find((one) => one.kind === kind);
    if (!found) {
      throw new Error(`${peer} sends no ${kind}`);
    }
    return found;
  }

  pauseProducer = (id) => this.ask('POST', `/producers/${id}/pause`);
  resumeProducer = (id) => this.ask('POST', `/producers/${id}/resume`);
  pauseConsumer = (id) => this.ask('POST', `/consumers/${id}/pause`);
  resumeConsumer = (id) => this.ask('POST', `/consumers/${id}/resume`);
  /** One of the server's statistics on a consumer. */
  stream = async (id, type) => {
    const stats = await this.ask('GET', `/consumers/${id}/rtc-stats`);
    return (stats.items ?? stats).find((one) => one.type === type);
  };
  consumer = (id) => this.ask('GET', `/consumers/${id}`);
  transports = async (room) => (await this.ask('GET', `/transports?room=${await this.room(room)}`)).items;
  closeRoom = async (name) => this.ask('DELETE', `/rooms/${await this.room(name)}`);
}
