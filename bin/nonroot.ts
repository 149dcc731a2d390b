// `nonroot`: joins the commands to this Node process. Started by the launcher `bin/nonroot`, or by Node itself.

import { threadAhead } from '../src/host/node/vcpu-thread.ts';

const words = process.argv.slice(2);
async function start(): Promise<void> {
  let again = false;
  if (words.includes('--confine')) {
    const { startsAgain } = await import('../src/host/node/confine.ts');
    again = startsAgain();
  }
  // What starts once more needs no thread before.
  const ahead = words[0] === 'run' && !words.includes('--help') && !again ? threadAhead() : undefined;
  const [{ main }, { nonroot }, { nodeHost }] = await Promise.all([
    import('./main.ts'),
    import('../src/cli/nonroot.ts'),
    import('../src/host/node/cli-host.ts'),
  ]);

  await main(nonroot, (version) => nodeHost(version, ahead));
}

void start();
