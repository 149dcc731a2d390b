// V8's machine code of WebAssembly modules, kept and taken again.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { nativeCode } from './native-code.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-native-'));
after(() => rmSync(folder, { recursive: true }));

/** sum(n) = n + (n - 1) + … + 1, times `factor`. */
function wasm(factor: number): Uint8Array<ArrayBuffer> {
  const loop = [0x03, 0x40, 0x20, 1, 0x20, 0, 0x6a, 0x21, 1, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b];
  const body = [1, 1, 0x7f, ...loop, 0x20, 1, 0x41, factor, 0x6c, 0x0b];
  const type = [1, 6, 1, 0x60, 1, 0x7f, 1, 0x7f];
  const sections = [...type, 3, 2, 1, 0, 7, 7, 1, 3, ...Buffer.from('sum'), 0, 0, 10, body.length + 2, 1, body.length, ...body];
  return Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections]);
}
const call = (module: WebAssembly.Module, n: number): number =>
  (new WebAssembly.Instance(module).exports['sum'] as (n: number) => number)(n);

/** A module that V8's optimising compiler has compiled. */
function optimised(factor: number): WebAssembly.Module {
  for (const flag of ['liftoff', 'wasm-lazy-compilation']) setFlagsFromString(`--no-${flag}`);
  const module = new WebAssembly.Module(wasm(factor));
  for (const flag of ['liftoff', 'wasm-lazy-compilation']) setFlagsFromString(`--${flag}`);
  return module;
}

test('the Node that the package brings is one whose binary interface is known', { skip: process.arch !== 'x64' }, () => {
  // Another one: read its v8-wasm.h and v8-function-callback.h, run these tests, and add its V8 to the list.
  assert.ok(nativeCode(), `V8 ${process.versions.v8} of Node ${process.version}`);
});

const native = nativeCode();
/** V8's flags of this process, which the test runner may have been given. */
const own = process.execArgv.filter((flag) => flag === '--no-memory-protection-keys');
const skip = native ? false : 'needs a Node whose binary interface is known, on Linux';

test('a module’s code is kept, and another process goes on with it', { skip }, () => {
  assert.equal(native!.save(new WebAssembly.Module(wasm(1))), undefined, 'nothing is optimised');
  const module = optimised(3);
  const code = native!.save(module)!;
  assert.ok(code.length > 100);
  writeFileSync(join(folder, 'code'), code);
  writeFileSync(join(folder, 'wasm'), wasm(3));
  const program = `
    import { readFileSync } from 'node:fs';
    import { nativeCode } from ${JSON.stringify(join(import.meta.dirname, 'native-code.ts'))};
    const [bytes, code] = ['wasm', 'code'].map((name) => readFileSync(${JSON.stringify(folder)} + '/' + name));
    const native = nativeCode();
    const module = native.load(bytes, code);
    console.log(module && new WebAssembly.Instance(module).exports.sum(100));
    // It is code, and not only taken for it.
    console.log(module && native.save(module)?.length === code.length);
    code[code.length - 1] ^= 1;
    console.log(new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.sum(10));`;
  const run = (...flags: string[]): string =>
    spawnSync(process.execPath, [...own, ...flags, '--input-type=module', '-e', program], { encoding: 'utf8', timeout: 60_000 })
      .stdout;
  assert.equal(run(), '15150\ntrue\n165\n');
  // V8 with other flags makes other code: it is refused, and compiled as always.
  assert.equal(run('--no-wasm-inlining'), 'undefined\nundefined\n165\n');
});

test('code that is none is refused, and the next is taken', { skip }, () => {
  const code = native!.save(optimised(5))!;
  for (const bad of [
    new Uint8Array(0),
    new Uint8Array(16),
    code.subarray(0, 8),
    Uint8Array.from(code, (b, i) => (i < 4 ? ~b : b)),
  ])
    assert.equal(native!.load(wasm(5), bad), undefined);
  assert.equal(call(native!.load(wasm(5), code)!, 10), 275);
  // Constructors are V8's own again.
  assert.throws(() => new WebAssembly.Module(Uint8Array.of(1, 2, 3)), { name: 'CompileError' });
  assert.equal(call(new WebAssembly.Module(wasm(7)), 10), 385);
});

test('threads keep and take code at the same time, and end while others do', { skip, timeout: 60_000 }, async () => {
  const program = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.from).then(({ nativeCode }) => {
      const native = nativeCode();
      for (let round = 0; round < 50; round++) {
        const module = native.load(workerData.bytes, workerData.code);
        if (new WebAssembly.Instance(module).exports.sum(4) !== 90) throw new Error('it adds wrong');
        if (native.save(module).length !== workerData.code.length) throw new Error('it is other code');
      }
      parentPort.postMessage('done');
    });`;
  const workerData = { from: join(import.meta.dirname, 'native-code.ts'), bytes: wasm(9), code: native!.save(optimised(9))! };
  const workers = Array.from({ length: 3 }, () => new Worker(program, { eval: true, workerData }));
  await Promise.all(
    workers.map(
      (w) =>
        new Promise<void>((resolve, reject) => {
          w.on('message', () => resolve());
          w.on('error', reject);
        }),
    ),
  );
  await Promise.all(workers.map((w) => w.terminate()));
  assert.equal(readFileSync(join(folder, 'wasm')).length, wasm(3).length);
});

test('threads that load code are ended where they are in no native code, and others load code again', {
  skip,
  timeout: 120_000,
}, () => {
  const program = `
    import { readFileSync } from 'node:fs';
    import { Worker } from 'node:worker_threads';
    import { endThreads } from ${JSON.stringify(join(import.meta.dirname, 'native-gate.ts'))};
    import { nativeCode } from ${JSON.stringify(join(import.meta.dirname, 'native-code.ts'))};
    const from = ${JSON.stringify(join(import.meta.dirname, 'native-code.ts'))};
    const [bytes, code] = ['wasm', 'code'].map((name) => readFileSync(${JSON.stringify(folder)} + '/' + name));
    const work = "import { workerData } from 'node:worker_threads'; const { nativeCode } = await import(workerData.from); for (;;) nativeCode()?.load(workerData.bytes, workerData.code);";
    for (let round = 0; round < 12; round++) {
      const workers = [0, 1].map(() => new Worker(work, { eval: true, workerData: { from, bytes, code } }));
      await new Promise((resolve) => setTimeout(resolve, 40 + 17 * round));
      await endThreads(workers);
    }
    process.exit(nativeCode().load(bytes, code) ? 7 : 8);`;
  const { status, signal, stderr } = spawnSync(process.execPath, [...own, '--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: 100_000,
  });
  assert.equal(status, 7, `${signal} ${stderr.slice(0, 500)}`);
});

test('a process that ends while its threads load code ends well', { skip, timeout: 120_000 }, () => {
  const program = `
    import { readFileSync } from 'node:fs';
    import { Worker } from 'node:worker_threads';
    import ${JSON.stringify(join(import.meta.dirname, 'native-gate.ts'))};
    const from = ${JSON.stringify(join(import.meta.dirname, 'native-code.ts'))};
    const [bytes, code] = ['wasm', 'code'].map((name) => readFileSync(${JSON.stringify(folder)} + '/' + name));
    const work = "import { workerData } from 'node:worker_threads'; const { nativeCode } = await import(workerData.from); for (;;) { const n = nativeCode(); if (n && n.load(workerData.bytes, workerData.code) === undefined) break; }";
    for (let n = 0; n < 2; n++) new Worker(work, { eval: true, workerData: { from, bytes, code } });
    setTimeout(() => process.exit(7), Number(process.argv[1]));`;
  for (const ms of [1, 40, 60, 70, 80, 90, 100, 120, 160, 250]) {
    const { status, signal, stderr } = spawnSync(
      process.execPath,
      [...own, '--input-type=module', '-e', program, '--', String(ms)],
      {
        encoding: 'utf8',
        timeout: 60_000,
      },
    );
    assert.equal(status, 7, `after ${ms} ms: ${signal} ${stderr.slice(0, 500)}`);
  }
});
