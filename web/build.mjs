// Builds dist/ from src/ and from the packages that package-lock.json names. With --check it only says whether dist/ is
// what would be built.

import { readFile, writeFile, mkdir } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const check = process.argv.includes('--check');

// mediasoup-client's package does not contain the licence that it names.
const OWN_WORDS = {
  'mediasoup-client': `ISC License

Copyright (c) 2015, Iñaki Baz Castillo <ibc@aliax.net>

Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES
WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR
ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF
OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`,
};

const LICENCE_NAMES = ['LICENSE', 'LICENSE.md', 'license.md', 'LICENCE', 'LICENSE.txt'];

async function licenceOf(name) {
  const directory = join(here, 'node_modules', name);
  const { version, license } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8'));
  const file = LICENCE_NAMES.map((own) => join(directory, own)).find((path) => existsSync(path));
  const text = file ? await readFile(file, 'utf8') : OWN_WORDS[name];
  if (!text) {
    throw new Error(`${name} has no licence text`);
  }
  return `${name} ${version} (${license})\n\n${text.trim()}\n`;
}

const bundled = await build({
  absWorkingDir: here,
  entryPoints: ['src/main.js'],
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['chrome100', 'firefox100', 'safari15'],
  charset: 'utf8',
  legalComments: 'none',
  // The packages were written for browserify, which knows this name.
  define: { global: 'globalThis' },
  banner: { js: '/* Built by web/build.mjs from web/src; the licences of what is in it are in licenses.txt. */' },
  metafile: true,
  write: false,
});

const packages = new Set();
for (const input of Object.keys(bundled.metafile.inputs)) {
  const [, rest] = input.split('node_modules/');
  if (rest) {
    packages.add(rest.split('/')[0]);
  }
}
const licences = await Promise.all([...packages].sort().map(licenceOf));
const rule = `\n${'-'.repeat(80)}\n\n`;

const built = new Map([
  ['app.js', bundled.outputFiles[0].text],
  ['index.html', await readFile(join(here, 'src/index.html'), 'utf8')],
  ['app.css', await readFile(join(here, 'src/app.css'), 'utf8')],
  ['icon.svg', await readFile(join(here, 'src/icon.svg'), 'utf8')],
  ['licenses.txt', `What app.js contains that others have written.\n${rule}${licences.join(rule)}`],
]);

let stale = 0;
await mkdir(join(here, 'dist'), { recursive: true });
for (const [name, text] of built) {
  const path = join(here, 'dist', name);
  const shown = relative(here, path).split(sep).join('/');
  if (!check) {
    await writeFile(path, text);
    console.log(`${shown}  ${Buffer.byteLength(text)} bytes`);
  } else if (!existsSync(path) || (await readFile(path, 'utf8')) !== text) {
    console.error(`${shown} is not what the sources make; run npm run build`);
    stale += 1;
  }
}
process.exitCode = stale > 0 ? 1 : 0;
