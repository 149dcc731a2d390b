import { test } from 'node:test';
import { cutPower } from './power.ts';

test('a power cut at any moment loses nothing that was flushed, whatever the drive had kept of the rest', {
  timeout: 120_000,
}, async () => {
  for (let seed = 1; seed <= 60; seed++) await cutPower(seed);
});
