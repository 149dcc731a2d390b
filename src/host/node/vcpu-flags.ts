// V8's flags in a process that translates. They are set when the translator is loaded, and not before: V8 does not take what Node and the bundles
// keep of compiled code once a flag is another one, and other threads load theirs meanwhile. From then on they stay as they are: machine code that is
// kept (native-code.ts) holds for one set of flags.

/** V8's optimising compiler fails a check of its own where it makes direct calls of node:ffi's functions, which native-code.ts uses. */
export const NATIVE_CODE_FLAG = '--no-turbo-fast-api-calls';

export const VCPU_FLAGS: readonly string[] = [
  // V8's optimising compiler takes over much earlier than it would for a web page: what is translated is hot.
  '--wasm-tiering-budget=300000',
  // Its book-keeping of code that is given back function by function goes wrong where several threads make code (nodejs/node#64500): the process
  // dies. A module's code is given back with the module.
  '--no-wasm-code-gc',
  // Functions are compiled when their module is, by the thread that makes it, and not by the one that calls them first.
  '--no-wasm-lazy-compilation',
  NATIVE_CODE_FLAG,
];
