// A guest's console on standard input and output: keys with the escape Ctrl-A, the monitor, window size, end of input.

import { consoleKeys } from '../chardev/keys.ts';
import type { RunningMachine } from '../machine/running.ts';
import type { CliHost, TerminalSize } from './host.ts';
import { MonitorLine } from './monitor.ts';

export interface ConsoleOptions {
  readonly host: CliHost;
  readonly machine: RunningMachine;
  /** Bytes for the guest's console. */
  readonly send: (bytes: Uint8Array) => void;
  /** The user wants to end the guest. */
  readonly quit: () => void;
  /** Ctrl-A is an escape; else all bytes go to the guest, and Ctrl-C on a terminal ends it. */
  readonly keys: boolean;
  /** Begin in the monitor, and never leave it. */
  readonly monitorOnly?: boolean;
  readonly resize?: (size: TerminalSize) => void;
  /** A pipe or file on standard input has ended. */
  readonly end?: () => void;
}

export interface ConsoleSession {
  readonly close: () => void;
}

const CTRL_C = 0x03;

/** Connects them until `close`, which gives the terminal back. */
export function openConsole(o: ConsoleOptions): ConsoleSession {
  const { host, machine } = o;
  const show = (text: string): void => void host.out.write(text);
  const monitor = new MonitorLine(machine, show);
  let inMonitor = o.monitorOnly ?? false;
  if (inMonitor) monitor.open();
  const send = (bytes: Uint8Array): void => {
    if (inMonitor) monitor.input(bytes);
    // As a keyboard does.
    else if (machine.status === 'suspended') machine.wakeup();
    else o.send(bytes);
  };
  const input = o.keys
    ? consoleKeys({
        send,
        quit: o.quit,
        help: (lines) => show(`\r\n${lines.join('\r\n')}\r\n`),
        toggleMonitor: () => {
          inMonitor = !inMonitor;
          if (inMonitor) monitor.open();
          else show('\r\n');
        },
        togglePause: () => {
          if (machine.status === 'running') void machine.pause().then(() => show('\r\n[guest paused; Ctrl-A p goes on]\r\n'));
          else if (machine.status === 'suspended') machine.wakeup();
          else machine.resume();
        },
      })
    : (bytes: Uint8Array) => (host.input.isTTY && !o.monitorOnly && bytes.includes(CTRL_C) ? o.quit() : send(bytes));
  return host.input.open({ input, resize: o.resize, end: o.end });
}
