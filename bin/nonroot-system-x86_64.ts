// `nonroot-system-x86_64`: joins the emulator's command line to this Node process. Started by the launcher of that name.

import { threadAhead } from '../src/host/node/vcpu-thread.ts';

const words = process.argv.slice(2);
async function start(): Promise<void> {
  let again = false;
  if (words.some((w) => /^--?sandbox$/.test(w))) {
    const { restartEarly, restartsLater } = await import('../src/host/node/confine.ts');
    restartEarly(words);
    again = restartsLater(words);
  }
  /** Asked for itself rather than for a machine, or for one that does not run. */
  const machine = (word: string, n: number): boolean => /^--?(M|machine)$/.test(words[n - 1]) && /^(type=)?none(,|$)/.test(word);
  const idle =
    words.length === 0 || words.some((w, n) => /^--?(help|h|version)$|^(help|\?)(,|$)|,help$/.test(w) || machine(w, n));
  const kvm = words.some(
    (w, n) => /^--?enable-kvm$|(^|,)accel=kvm\b/.test(w) || (/^--?accel$/.test(words[n - 1]!) && /^kvm\b/.test(w)),
  );
  // What starts once more needs no thread before.
  const ahead = idle || again ? undefined : threadAhead(kvm ? 'modules' : 'translator');
  const [{ main }, { system }, { nodeSystemHost }] = await Promise.all([
    import('./main.ts'),
    import('../src/cli/system.ts'),
    import('../src/host/node/system-host.ts'),
  ]);

  await main(system, (version) => nodeSystemHost(version, ahead));
}

void start();
