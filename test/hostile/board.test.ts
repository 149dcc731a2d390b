// Registers of both boards with devices of every kind, at random; `npm run fuzz -- --board` goes on for longer.

import { test } from 'node:test';
import { fuzzBoard } from './board-fuzz.ts';

for (const machine of ['pc', 'q35'] as const) {
  test(`no accesses to the registers of ${machine} make a device throw or hang`, { timeout: 120_000 }, async () => {
    for (let seed = 1; seed <= 3; seed++) await fuzzBoard(machine, seed, 15_000);
  });
}
