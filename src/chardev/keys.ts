// The escape key of a guest's console on the user's terminal: Ctrl-A and a letter, as QEMU's "Keys in the character backend multiplexer".

/** What the keys do. A key whose action is left out does not exist. */
export type ConsoleActions = {
  /** Bytes for the guest. */
  readonly send: (bytes: Uint8Array) => void;
  /** Ctrl-A x. */
  readonly quit: () => void;
  /** Ctrl-A h, with the lines to show. */
  readonly help: (lines: readonly string[]) => void;
  /** Ctrl-A c. */
  readonly toggleMonitor?: () => void;
  /** Ctrl-A p. */
  readonly togglePause?: () => void;
  /** Ctrl-A s. */
  readonly snapshot?: () => void;
  /** Ctrl-A b. */
  readonly sendBreak?: () => void;
};

const CTRL_A = 0x01;

/**
 * A function to call with each piece of the user's input. Ctrl-A Ctrl-A and Ctrl-A a send one Ctrl-A; Ctrl-A and any other letter
 * without a meaning are swallowed. The escape may be split over two pieces. After `quit` all input is dropped.
 */
export function consoleKeys(actions: ConsoleActions): (input: Uint8Array) => void {
  const keys = new Map<number, () => void>();
  let ended = false;
  const help: string[] = [];
  const key = (letter: string, text: string, action: (() => void) | undefined) => {
    if (!action) return;
    keys.set(letter.charCodeAt(0), action);
    help.push(`Ctrl-A ${letter}  ${text}`);
  };
  key('h', 'this help', () => actions.help(help));
  key('x', 'end the guest at once', () => {
    ended = true;
    actions.quit();
  });
  key('c', 'switch between console and monitor', actions.toggleMonitor);
  key('p', 'pause or continue the guest', actions.togglePause);
  key('s', 'take a snapshot', actions.snapshot);
  key('b', 'send a break', actions.sendBreak);
  key('a', 'send Ctrl-A (as Ctrl-A Ctrl-A)', () => actions.send(Uint8Array.of(CTRL_A)));
  let escaped = false;
  return (input) => {
    if (ended) return;
    let from = 0;
    for (const [at, byte] of input.entries()) {
      if (escaped) {
        escaped = false;
        from = at + 1;
        keys.get(byte === CTRL_A ? 0x61 : byte | 0x20)?.();
        if (ended) return;
      } else if (byte === CTRL_A) {
        if (at > from) actions.send(input.subarray(from, at));
        from = at + 1;
        escaped = true;
      }
    }
    if (from < input.length) actions.send(input.subarray(from));
  };
}
