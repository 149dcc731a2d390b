// The long run of the comparison with the host's CPU: random cases from the instruction rows, on the host and on the emulator's tiers.
// Usage: node tools/fuzz.ts [--cases N] [--seed S] [--rows REGEX] [--tiers eval,tier0] [--failures N] [--mode 64|32|16] [--loop N] [--prove]
//        node tools/fuzz.ts --board pc|q35 [--cases SEEDS] [--seed FIRST]: registers of a board with devices of every kind, 30,000 accesses a seed
//        node tools/fuzz.ts --system code|pages|msr|gates|gates32 [--cases N] [--seed S] [--peer /usr/bin/qemu-system-x86_64]: random cases in ring 0, between the
//        tiers or with another emulator
//        node tools/fuzz.ts --protocol net|rfb|gdb|nbd-server|nbd-client [--cases SEEDS] [--seed FIRST]: a hostile peer of that protocol
//        node tools/fuzz.ts --case 'mode=64 code=4801d8 rax=1' [--undefined 8d5] [--tiers eval,tier0]

import { enableCompileCache } from 'node:module';
import { join } from 'node:path';

// Node keeps what it makes of the sources: half of a short run is spent on that otherwise.
enableCompileCache(join(import.meta.dirname, '../.cache/node'));
await import('./fuzz-run.ts');
