// Loaded before a program (`--import`) by bundle.ts: keeps what V8 has compiled of the bundles, in each thread of the program, beside them.

import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isMainThread, MessagePort } from 'node:worker_threads';

// As CommonJS modules see them.
const require = createRequire(import.meta.url);
const v8 = require('node:v8') as { setFlagsFromString(flag: string): void };
const vm = require('node:vm') as typeof import('node:vm');
const { setFlagsFromString } = v8;
const bundles = new Map<string, import('node:vm').Script>();

// Code of another thread's flags is none of a start's.
v8.setFlagsFromString = () => {};
setFlagsFromString('--no-flush-bytecode');
vm.Script = class extends vm.Script {
  constructor(source: string, options: import('node:vm').ScriptOptions & { readonly kept: string }) {
    // Not with what was kept for another kind of start.
    super(source, existsSync(options.kept) ? options : { ...options, cachedData: undefined });
    bundles.set(options.kept, this);
  }
};

function keep(): void {
  setFlagsFromString('--flush-bytecode');
  for (const [path, script] of bundles) {
    const temporary = `${path}.${process.pid}`;
    writeFileSync(temporary, script.createCachedData());
    renameSync(temporary, path);
  }
  setFlagsFromString('--no-flush-bytecode');
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
