// V8's flags in a process that translates. They are set when the translator is loaded, and not before: V8 does not take what Node and the bundles
// keep of compiled code once a flag is another one, and other threads load theirs meanwhile.

export const VCPU_FLAGS: readonly string[] = [
  // V8's optimising compiler takes over much earlier than it would for a web page: what is translated is hot.
  '--wasm-tiering-budget=300000',
  // Its book-keeping of code that is given back function by function goes wrong where several threads make code (nodejs/node#64500): the process
  // dies. A module's code is given back with the module.
  '--no-wasm-code-gc',
];
