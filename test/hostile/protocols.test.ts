// Hostile peers of the protocols that the emulator speaks, a short run each; `npm run fuzz -- --protocol NAME` goes on for longer. gdb's is
// in test/emulator/gdb.test.ts, beside the emulator that it needs. Seeds of findings are kept here.

import { test } from 'node:test';
import { fuzzNbdClient, fuzzNbdServer } from './nbd-fuzz.ts';
import { fuzzNet } from './net-fuzz.ts';
import { fuzzRfb } from './rfb-fuzz.ts';

test('no frames of a guest bring the user-mode network out of step', { timeout: 120_000 }, async () => {
  for (let seed = 1; seed <= 12; seed++) await fuzzNet(seed, 3000);
});

test('no VNC client brings the display out of step', { timeout: 120_000 }, async () => {
  for (let seed = 1; seed <= 12; seed++) await fuzzRfb(seed, 40);
});

test('no NBD client brings our server out of step, no server our client', { timeout: 120_000 }, async () => {
  for (let seed = 1; seed <= 12; seed++) await fuzzNbdServer(seed, 15);
  await Promise.all(Array.from({ length: 12 }, (_, n) => fuzzNbdClient(n + 1, 8)));
});
