// A terminal for a program under test, by Python's pty module: plays a dialogue with it and tells whether the terminal came back.

import { spawn, spawnSync } from 'node:child_process';

/** What happened on the terminal. */
export interface Dialogue {
  readonly code: number | null;
  /** The terminal's settings are what they were before. */
  readonly restored: boolean;
  /** Everything that was shown. */
  readonly screen: string;
  /** A step's text that was waited for and did not come. */
  readonly missed: string | null;
}

/** Why there is no pty here; false when there is one. Fits node:test's `skip`. */
export function noPty(): string | false {
  const { status, error } = spawnSync('python3', ['-c', 'import pty, termios'], { stdio: 'ignore' });
  return status === 0 ? false : `no pty: python3 is missing or has no pty module${error ? ` (${error.message})` : ''}`;
}

// Arguments: a JSON list of the steps, seconds, rows, columns, the program and its arguments. A question for the cursor's place
// (`ESC [ 6 n`, ECMA-48, 8.3.35) is answered, as a terminal does.
const SCRIPT = `
import fcntl, json, os, select, struct, subprocess, sys, termios, time
steps, seconds, rows, cols = json.loads(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
host, terminal = os.openpty()
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))
before = termios.tcgetattr(terminal)
child = subprocess.Popen(sys.argv[5:], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
screen, seen, answered, end = b'', 0, 0, time.time() + seconds
while time.time() < end:
    if select.select([host], [], [], 0.1)[0]:
        screen += os.read(host, 65536)
    elif child.poll() is not None:
        break
    while screen.count(b'\\x1b[6n') > answered:
        answered += 1
        os.write(host, b'\\x1b[1;1R')
    if steps:
        at = screen.find(steps[0][0].encode(), seen)
        if at >= 0:
            seen = at + len(steps[0][0].encode())
            os.write(host, steps.pop(0)[1].encode())
code = child.poll()
if code is None:
    child.kill()
print(json.dumps({'code': code, 'restored': termios.tcgetattr(terminal) == before,
                  'screen': screen.decode('utf-8', 'replace'), 'missed': steps[0][0] if steps else None}))
`;

/**
 * Runs a program on a terminal of 33 rows and 99 columns. Each step waits until its first text is shown, after that of the step before,
 * and then types its second one. The program is killed after `seconds`.
 */
export function dialogue(
  command: readonly string[],
  steps: readonly (readonly [string, string])[],
  seconds: number,
): Promise<Dialogue> {
  const child = spawn('python3', ['-c', SCRIPT, JSON.stringify(steps), String(seconds), '33', '99', ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TERM: 'xterm' },
  });
  let text = '';
  child.stdout.on('data', (bytes: Buffer) => {
    text += bytes;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      try {
        resolve(JSON.parse(text) as Dialogue);
      } catch {
        reject(new Error(`Cannot play dialogue: the driver said "${text}"`));
      }
    });
  });
}
