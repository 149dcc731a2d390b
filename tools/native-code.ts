// Run by bundle.ts, with each of the flags that programs are started with: keeps V8's code of the translator's modules beside them, in the folder that
// is given.

import { setFlagsFromString } from 'node:v8';
import { writeNative } from '../src/host/node/prebuilt.ts';
import { VCPU_FLAGS } from '../src/host/node/vcpu-flags.ts';

for (const flag of VCPU_FLAGS) setFlagsFromString(flag);
writeNative(process.argv[2]!);
