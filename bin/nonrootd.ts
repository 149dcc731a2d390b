// `nonrootd`: joins the management daemon to this Node process. Started by the launcher `bin/nonrootd`, or by Node itself.

import { nonrootd } from '../src/cli/daemon.ts';
import { nodeHost } from '../src/host/node/cli-host.ts';
import { main } from './main.ts';

void main(nonrootd, nodeHost);
