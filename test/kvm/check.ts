// What programs inside of the outer guest (outer.ts) have in common: how they tell their results, and a program for their guests that shows what is wrong
// with registers and memory.

/** Runs a check and prints one line, `ok NAME` or `not ok NAME: WHY` with where that was thrown; whether it was ok. */
export async function check(name: string, action: () => Promise<void>): Promise<boolean> {
  const start = Date.now();
  try {
    await action();
    console.log(`ok ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
    return true;
  } catch (error) {
    const { message, stack = '' } = error as Error;
    const where = stack.split('\n').filter((line) => /^ +at /.test(line));
    console.log(`not ok ${name}: ${[...message.split('\n'), ...where.slice(0, 5).map((line) => line.trim())].join(' | ')}`);
    return false;
  }
}

export function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

/** Longest wait for a guest, in ms. A busy machine emulates the outer guest at a tenth of its speed. */
export const LIMIT = 300_000;

/**
 * A shell's program that adds up, over and over: wrong registers or memory show in a sum. /tmp/n has the rounds that were right, /tmp/bad the others. Its
 * rounds are short: the translator makes some hundred thousand instructions a second here, where all its code is new.
 */
export const PROGRAM = `rm -f /tmp/bad; echo 0 > /tmp/n; (n=0; while :; do i=0; s=0; while [ $i -lt 100 ]; do i=$((i+1)); s=$((s+i*i)); done; [ $s = 338350 ] && n=$((n+1)) || echo $s >> /tmp/bad; echo $n > /tmp/n; done) & true`;
/** Waits until three more rounds are over, and says RIGHT when all were. The file is empty for a moment each time. */
export const THREE_MORE =
  'a=; while [ -z "$a" ]; do read a < /tmp/n; done; n=$a; while [ "${n:-0}" -lt $((a+3)) ]; do sleep 1; read n < /tmp/n; done; [ -e /tmp/bad ] || echo RI"GHT"';
/** Seconds since the guest started, of what `cat /proc/uptime` printed; what the shell tells of its jobs may stand before them. */
export const secondsOf = (text: string): number => Number(/^([\d.]+) [\d.]+\r?$/m.exec(text)?.[1]);
