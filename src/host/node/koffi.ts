// koffi, by which libc is called. Its native part is looked for at its place first: to find it by itself, the package reads and compiles some files
// of JavaScript and looks at Node's own file, which takes 12 ms of a thread's start.

import { createRequire } from 'node:module';
import { inNativeSoon } from './native-gate.ts';

let loaded: unknown;

/**
 * What the caller uses of koffi; loaded once for each thread.
 * @throws Error where there is no binary of it for this platform
 */
export function loadKoffi<K>(): K {
  loaded ??= inNativeSoon(() => {
    const require = createRequire(import.meta.url);
    const { platform, arch } = process;
    try {
      return require(`@koromix/koffi-${platform}-${arch}/${platform}_${arch}/koffi.node`);
    } catch {
      // The package knows more places, and says what is missing.
      return require('koffi');
    }
  });
  return loaded as K;
}
