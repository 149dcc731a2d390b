// `nonroot`: joins the commands to this Node process. Started by the launcher `bin/nonroot`, or by Node itself.

import { nonroot } from '../src/cli/nonroot.ts';
import { nodeHost } from '../src/host/node/cli-host.ts';
import { main } from './main.ts';

await main(nonroot, nodeHost);
