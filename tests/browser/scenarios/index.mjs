// All scenarios, in the order in which they are begun. The last one ends the server, and is played alone.

import * as media from './media.mjs';
import * as membership from './membership.mjs';
import * as pausing from './pausing.mjs';
import * as switching from './switching.mjs';
import * as connection from './connection.mjs';
import * as firefox from './firefox.mjs';
import * as ways from './ways.mjs';
import * as losses from './losses.mjs';
import * as deaths from './deaths.mjs';
import * as mixed from './mixed.mjs';
import * as page from './page.mjs';
import * as reloading from './reloading.mjs';
import * as closing from './closing.mjs';
import * as frames from './frames.mjs';
import * as padding from './padding.mjs';

const all = [media, pausing, membership, switching, connection, firefox, ways, losses, deaths, mixed, page, reloading, frames, padding, closing];

export const scenarios = all.flatMap((part) => Object.values(part));
