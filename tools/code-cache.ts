// Loaded before a program (`--import`) by bundle.ts: keeps what V8 has compiled of the bundles, in each thread of the program, beside them.

import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { getEnvironmentData, isMainThread, MessagePort, setEnvironmentData } from 'node:worker_threads';

// As CommonJS modules see them.
const require = createRequire(import.meta.url);
const v8 = require('node:v8') as { setFlagsFromString(flag: string): void };
const vm = require('node:vm') as typeof import('node:vm');
const { setFlagsFromString } = v8;
const bundles = new Map<string, import('node:vm').Script>();

// Code of another thread's flags is none of a start's.
v8.setFlagsFromString = () => {};
if (isMainThread) setFlagsFromString('--no-flush-bytecode');
vm.Script = class extends vm.Script {
  constructor(source: string, options: import('node:vm').ScriptOptions & { readonly kept: string }) {
    // Not with what was kept for another kind of start.
    super(source, existsSync(options.kept) ? options : { ...options, cachedData: undefined });
    bundles.set(options.kept, this);
  }
};

/** A word that all threads of the process share, 1 while one of them keeps code: flags are the process's. A thread that was ended in there holds nobody. */
const NAME = 'code-cache';
const busy =
  (getEnvironmentData(NAME) as unknown as Int32Array<SharedArrayBuffer> | undefined) ?? new Int32Array(new SharedArrayBuffer(4));
setEnvironmentData(NAME, busy);
const PATIENCE = 2000;

function keep(): void {
  const end = Date.now() + PATIENCE;
  while (Atomics.compareExchange(busy, 0, 0, 1) !== 0 && Date.now() < end) Atomics.wait(busy, 0, 1, 10);
  setFlagsFromString('--flush-bytecode');
  for (const [path, script] of bundles) {
    const temporary = `${path}.${process.pid}`;
    writeFileSync(temporary, script.createCachedData());
    renameSync(temporary, path);
  }
  setFlagsFromString('--no-flush-bytecode');
  Atomics.store(busy, 0, 0);
}

process.on('exit', keep);
if (!isMainThread) {
  // Threads are ended from outside: what they have sent last is the last that is heard of them.
  const { prototype } = MessagePort;
  const post = prototype.postMessage;
  prototype.postMessage = function (this: MessagePort, ...words: unknown[]) {
    keep();
    Reflect.apply(post, this, words);
  };
}
