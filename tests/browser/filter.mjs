// The filter of the network namespace that a play has to itself.

import { execFileSync } from 'node:child_process';

/** Has these lines of nft, about the table `inet weir`, and nothing of what was there before. */
export function filter(...lines) {
  const input = ['add table inet weir', 'delete table inet weir', 'add table inet weir', ...lines, ''].join('\n');
  execFileSync('nft', ['-f', '-'], { input });
}

/** How many packets each counter of that table has seen. */
export function counted() {
  const { nftables } = JSON.parse(execFileSync('nft', ['--json', 'list', 'counters', 'table', 'inet', 'weir'], { encoding: 'utf8' }));
  return Object.fromEntries(nftables.flatMap(({ counter }) => (counter ? [[counter.name, counter.packets]] : [])));
}
