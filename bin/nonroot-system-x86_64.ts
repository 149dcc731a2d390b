// `nonroot-system-x86_64`: joins the emulator's command line to this Node process. Started by the launcher of that name.

import { system } from '../src/cli/system.ts';
import { nodeSystemHost } from '../src/host/node/system-host.ts';
import { main } from './main.ts';

await main(system, nodeSystemHost);
