import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import { inFolder } from './file-testing.ts';
import { openFrozen } from './frozen-memory.ts';
import { readSnapshot, writeSnapshot } from './snapshot-file.ts';

const BYTES = 8 * 4096;

test('a snapshot is read as it was written, and a damaged one is refused in one line', () =>
  inFolder(async (folder) => {
    const [memory, path] = [join(folder, 'memory'), join(folder, 'snapshot')];
    writeFileSync(memory, Buffer.alloc(BYTES, 'memory of a machine '));
    const write = openSync(path, 'w');
    const frozen = openFrozen(memory, 0, BYTES);
    writeSnapshot(write, { state: Buffer.from('its state'), memory: frozen }, 'a note');
    frozen.close();
    closeSync(write);
    const back = readSnapshot(openSync(path, 'r'), path);
    assert.deepEqual([back.note, Buffer.from(back.frozen.state).toString()], ['a note', 'its state']);
    assert.equal(back.frozen.memory.length, BYTES);
    const out = openSync(join(folder, 'out'), 'w');
    back.frozen.memory.copyTo(out, 0);
    closeSync(out);
    back.frozen.memory.close();
    assert.deepEqual(readFileSync(join(folder, 'out')), readFileSync(memory));

    const whole = readFileSync(path);
    const below = seeded(20261128);
    let refused = 0;
    for (let n = 0; n < 600; n++) {
      const damaged = Buffer.from(whole);
      // The header's fields and the magic; or the file is cut short.
      if (n % 3 === 0) damaged[below(16)]! ^= 1 << below(8);
      else if (n % 3 === 1)
        damaged.writeDoubleLE([-1, 0.5, Number.NaN, 2 ** 40, 2 ** 60, 4097, below(2 ** 31)][below(7)]!, 16 + 8 * below(4));
      writeFileSync(path, n % 3 === 2 ? damaged.subarray(0, below(damaged.length)) : damaged);
      const fd = openSync(path, 'r+');
      try {
        readSnapshot(fd, path).frozen.memory.close();
      } catch (error) {
        refused++;
        assert.match((error as Error).message, /^Cannot (restore|use memory in) [^\n]*$/);
        ftruncateSync(fd, 0);
        closeSync(fd);
      }
    }
    assert.ok(refused > 400, `${refused} were refused`);
  }));
