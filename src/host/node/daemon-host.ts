// All of the daemon's host on this Node process.

import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import type { DaemonHost } from '../../daemon/host.ts';
import { nodeFacts } from './daemon-facts.ts';
import { nodeFiles } from './daemon-files.ts';
import { nodeProcesses } from './daemon-processes.ts';
import { nodeSockets } from './daemon-sockets.ts';
import { nodeDiskHost } from './file.ts';

const derive = promisify(pbkdf2);

export const nodeDaemonHost = (log: (line: string) => void): DaemonHost => ({
  files: nodeFiles,
  processes: nodeProcesses,
  sockets: nodeSockets,
  timers: {
    after(ms, run) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
  },
  facts: nodeFacts(),
  crypto: {
    random: (length) => new Uint8Array(randomBytes(length)),
    sha256: (bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()),
    hmac: (key, bytes) => new Uint8Array(createHmac('sha256', key).update(bytes).digest()),
    derive: async (password, salt, iterations) => new Uint8Array(await derive(password, salt, iterations, 32, 'sha256')),
  },
  disks: nodeDiskHost(),
  now: () => Date.now(),
  log,
});
