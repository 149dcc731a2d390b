// Power cuts without end, judged by qemu-img as well: `node --test test/disk/power.long.ts`; NONROOT_SEED begins elsewhere, NONROOT_CUTS says how many.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inFolder, tool, withoutTool } from '../../src/host/node/file-testing.ts';
import { cutPower } from './power.ts';

const first = Number(process.env['NONROOT_SEED'] ?? 1000);
const cuts = Number(process.env['NONROOT_CUTS'] ?? 3000);

test(`${cuts} power cuts from seed ${first} on`, { skip: withoutTool('qemu-img') }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'found.qcow2');
    for (let seed = first; seed < first + cuts; seed++)
      await cutPower(seed, async (file, c) => {
        // Counts of images with lazy ones are made anew by whoever opens them.
        if (c.format === 'raw' || c.lazyRefcounts) return;
        const bytes = new Uint8Array(await file.size());
        await file.read(0, bytes);
        writeFileSync(path, bytes);
        const { code, out, err } = tool('qemu-img', 'check', path);
        // 3: leaks only.
        assert.ok(code === 0 || code === 3, `seed ${seed}: ${out}${err}`);
      });
  }),
);
