import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileIdentity, keptKernel, openKernel } from './kept-kernel.ts';

test('a kernel is decompressed once, whatever else was kept in its place, and a broken cache does no harm', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'nonroot-kernels-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  let made = 0;
  const get = (n: number): Uint8Array | undefined => {
    const file = keptKernel(
      () => Uint8Array.of(n),
      () => Uint8Array.of(n, n, n).fill(++made > 0 ? n : 0),
      undefined,
      { root },
    );
    const bytes = file?.bytes(0, file.length);
    file?.close?.();
    return bytes;
  };
  assert.deepEqual([...get(1)!], [1, 1, 1]);
  assert.deepEqual([...get(1)!], [1, 1, 1]);
  assert.equal(made, 1);
  for (let n = 2; n < 12; n++) assert.deepEqual([...get(n)!], [n, n, n]);
  assert.ok(readdirSync(join(root, 'kernels')).length <= 4);
  for (const name of readdirSync(join(root, 'kernels'))) writeFileSync(join(root, 'kernels', name), 'cut');
  assert.deepEqual([...get(11)!], [11, 11, 11]);
  assert.equal(
    keptKernel(
      () => Uint8Array.of(1),
      () => undefined,
      undefined,
      { root },
    ),
    undefined,
  );
});

test('a kernel is found by the identity of its file, also where another file has the same contents', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'nonroot-kernels-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const get = (n: number, identity: string, kept: number): void => {
    const file = keptKernel(
      () => Uint8Array.of(n),
      () => Uint8Array.of(n, n),
      identity,
      { root },
    );
    assert.deepEqual([...file!.bytes(0, file!.length)], [kept, kept], `${n} ${identity}`);
    file?.close?.();
  };
  get(1, 'a', 1);
  // By its name alone: nobody looks at the bytes.
  get(2, 'a', 1);
  get(1, 'b', 1);
  get(2, 'b', 1);
  get(2, 'a', 2);
});

test('the identity of a file that is written to is another one, once there is one', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'nonroot-kernels-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const path = join(root, 'kernel');
  const identity = async (): Promise<string> => {
    for (;;) {
      const word = fileIdentity(path);
      if (word !== undefined) return word;
      await sleep(100);
    }
  };
  writeFileSync(path, 'one');
  assert.equal(fileIdentity(path), undefined, 'it was written to just now');
  const first = await identity();
  assert.equal(fileIdentity(path), first);
  const { mtime } = statSync(path);
  writeFileSync(path, 'two');
  utimesSync(path, mtime, mtime);
  assert.notEqual(await identity(), first);
  assert.equal(fileIdentity(root), undefined);
  assert.equal(fileIdentity(join(root, 'none')), undefined);
});

test("of a kernel's file the beginning is read, and the rest when it is asked for, of the same file", async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'nonroot-kernels-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const path = join(root, 'kernel');
  const bytes = Buffer.alloc(1 << 20, 'Linux ');
  const open = async (): Promise<NonNullable<ReturnType<typeof openKernel>>> => {
    writeFileSync(path, bytes);
    assert.equal(openKernel(path), undefined, 'it was written to just now');
    for (;;) {
      const opened = openKernel(path);
      if (opened) return opened;
      await sleep(100);
    }
  };
  const opened = await open();
  assert.equal(opened.identity, fileIdentity(path));
  assert.equal(opened.kernel.length, bytes.length);
  const begins = 128 << 10;
  assert.ok(bytes.subarray(0, begins).equals(opened.kernel.subarray(0, begins)));
  assert.ok(opened.kernel.subarray(begins).every((b) => b === 0));
  opened.complete!();
  assert.ok(bytes.equals(opened.kernel));
  writeFileSync(path, 'other');
  opened.complete!();
  assert.ok(bytes.equals(opened.kernel), 'it is read once');

  const { complete } = await open();
  writeFileSync(path, Buffer.alloc(bytes.length, 'other'));
  assert.throws(complete!, /^Error: Cannot read .*kernel: it was written to meanwhile$/);
});
