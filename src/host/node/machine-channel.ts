// What the process of a confined machine and the one that made it say to each other: lines of JSON over a socket. The machine's side may be in
// the hands of its guest, so nothing that comes from there is taken for more than text: no structured clones, lines have a bound.

import type { Socket } from 'node:net';
import { StringDecoder } from 'node:string_decoder';
import type { MachineOptions } from '../../api/machine.ts';
import type { MachineEnd, MachineStatus } from '../../machine/running.ts';

/** Longest line, in characters: a command's whole output is in one. */
const LINE_MAX = 256 << 20;

/** What a machine is made of, as text: bytes are base64. */
export type SentOptions = Omit<MachineOptions, 'report' | 'kernel' | 'initrd' | 'confine'> & {
  readonly kernel?: SentFile;
  readonly initrd?: SentFile;
};
export type SentFile = string | { readonly base64: string };

/** Methods of a machine that are called over the channel. */
export const methods = ['exec', 'pause', 'resume', 'reset', 'powerButton', 'setAccel', 'snapshot', 'close'] as const;
export type Method = (typeof methods)[number];

/** Descriptors of the machine's process: the channel; a file that it writes its snapshots to; one with the memory that it goes on from. */
export const Descriptor = { channel: 3, snapshots: 4, memory: 5 } as const;

/** What a machine goes on from: its state as base64, and where in the file its memory begins, and bytes of that. */
export interface SentFrozen {
  readonly state: string;
  readonly offset: number;
  readonly length: number;
}

export type ToMachine =
  | { readonly kind: 'options'; readonly options: SentOptions; readonly frozen?: SentFrozen }
  | { readonly kind: 'input'; readonly base64: string }
  | { readonly kind: 'call'; readonly id: number; readonly method: Method; readonly args: readonly unknown[] };

export type FromMachine = { readonly status?: MachineStatus; readonly accel?: 'dbt' | 'kvm' } & (
  | { readonly kind: 'hello' | 'made' | 'reset' | 'ready' | 'status' }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'console'; readonly base64: string }
  | { readonly kind: 'report'; readonly device: string; readonly message: string }
  | { readonly kind: 'answer'; readonly id: number; readonly value?: unknown; readonly error?: string }
  | { readonly kind: 'ended'; readonly end: MachineEnd }
);

/** Sends an object; resolves when there is room for more. */
export function send(socket: Socket, message: ToMachine | FromMachine): Promise<void> {
  if (socket.destroyed || socket.write(`${JSON.stringify(message)}\n`)) return Promise.resolve();
  return new Promise((resolve) => {
    const go = (): void => {
      socket.off('drain', go).off('close', go);
      resolve();
    };
    socket.on('drain', go).on('close', go);
  });
}

/** Calls `hear` with each object that comes. What is none, or too long, ends the connection. */
export function receive(socket: Socket, hear: (message: { readonly kind: unknown }) => void): void {
  const decoder = new StringDecoder('utf8');
  let parts: string[] = [];
  let length = 0;
  socket.on('error', () => socket.destroy());
  socket.on('data', (bytes: Buffer) => {
    const lines = decoder.write(bytes).split('\n');
    for (const [n, piece] of lines.entries()) {
      parts.push(piece);
      length += piece.length;
      if (length > LINE_MAX) return socket.destroy();
      if (n === lines.length - 1) return;
      let message: unknown;
      try {
        message = JSON.parse(parts.join(''));
      } catch {}
      parts = [];
      length = 0;
      if (typeof message !== 'object' || message === null || !('kind' in message)) return socket.destroy();
      hear(message);
    }
  });
}
