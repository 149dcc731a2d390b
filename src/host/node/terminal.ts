// The user's terminal in raw mode: POSIX.1-2017 chapter 11 "General Terminal Interface" through Node's tty, always given back as it was.

/** Size in characters. */
export type TerminalSize = { readonly rows: number; readonly cols: number };

/** The parts of process.stdin, process.stdout and process that are used; tests bring their own. */
export type TerminalStreams = {
  readonly input: {
    readonly isTTY?: boolean;
    setRawMode?(raw: boolean): unknown;
    on(event: 'data', listener: (bytes: Uint8Array) => void): unknown;
    on(event: 'end', listener: () => void): unknown;
    off(event: 'data' | 'end', listener: (bytes: Uint8Array) => void): unknown;
    resume(): unknown;
    pause(): unknown;
  };
  readonly output: {
    readonly isTTY?: boolean;
    readonly rows?: number;
    readonly columns?: number;
    on(event: 'resize', listener: () => void): unknown;
    off(event: 'resize', listener: () => void): unknown;
  };
  readonly process: {
    readonly pid: number;
    kill(pid: number, signal: NodeJS.Signals): unknown;
    on(event: NodeJS.Signals | 'exit', listener: () => void): unknown;
    off(event: NodeJS.Signals | 'exit', listener: () => void): unknown;
    listenerCount(event: NodeJS.Signals): number;
  };
};

/** What the terminal tells. */
export type TerminalListener = {
  readonly input: (bytes: Uint8Array) => void;
  /** No more input will come: end of a pipe, or the terminal is gone. */
  readonly end?: () => void;
  readonly resize?: (size: TerminalSize) => void;
};

/** A terminal in use. `close` gives it back; closing twice does nothing. */
export type Terminal = { readonly size: () => TerminalSize | undefined; readonly close: () => void };

const ENDING: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGINT'];

/**
 * Takes the terminal: raw mode if it is one, input to the listener. It is given back by `close`, at the process's exit (which an
 * uncaught exception is too), before a signal ends the process, and while the process is stopped by SIGTSTP.
 */
export function openTerminal(
  listener: TerminalListener,
  streams: TerminalStreams = { input: process.stdin, output: process.stdout, process },
): Terminal {
  const { input, output, process: host } = streams;
  let open = true;
  const raw = (on: boolean) => {
    if (input.isTTY) input.setRawMode?.(on);
  };
  const size = () => (output.isTTY && output.rows && output.columns ? { rows: output.rows, cols: output.columns } : undefined);
  const data = (bytes: Uint8Array) => listener.input(bytes);
  const end = () => listener.end?.();
  const resize = () => {
    const now = size();
    if (now) listener.resize?.(now);
  };
  const restore = () => raw(false);
  const ending = ENDING.map((signal) => [signal, () => raise(signal)] as const);
  const stop = () => {
    raw(false);
    // With our listener away, the signal stops the process; SIGCONT goes on in `resume`.
    host.off('SIGTSTP', stop);
    host.kill(host.pid, 'SIGTSTP');
  };
  const resume = () => {
    host.off('SIGTSTP', stop);
    host.on('SIGTSTP', stop);
    raw(true);
    // Changes of size went to whoever had the terminal meanwhile; Node asks for it anew on this signal.
    host.kill(host.pid, 'SIGWINCH');
  };
  const close = () => {
    if (!open) return;
    open = false;
    raw(false);
    input.off('data', data);
    input.off('end', end);
    input.pause();
    output.off('resize', resize);
    host.off('exit', restore);
    host.off('SIGTSTP', stop);
    host.off('SIGCONT', resume);
    for (const [signal, handler] of ending) host.off(signal, handler);
  };
  const raise = (signal: NodeJS.Signals) => {
    close();
    // Where nobody else listens, the signal now does what it does by default.
    if (host.listenerCount(signal) === 0) host.kill(host.pid, signal);
  };
  raw(true);
  input.on('data', data);
  input.on('end', end);
  input.resume();
  output.on('resize', resize);
  host.on('exit', restore);
  host.on('SIGTSTP', stop);
  host.on('SIGCONT', resume);
  for (const [signal, handler] of ending) host.on(signal, handler);
  return { size, close };
}
