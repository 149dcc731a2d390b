// The second, small cpio archive that tells one guest what its host wants: Linux unpacks archives in a row, later files win.

import { type CpioEntry, file, writeCpio } from './cpio.ts';

/** The guest's devices for the channels of a session; serial ports on a PC. */
export const CHANNELS = { out: '/dev/ttyS1', err: '/dev/ttyS2', control: '/dev/ttyS3' } as const;

/** What a guest is told; all of it optional. */
export type Session = {
  /** Terminal size in characters. */
  readonly rows?: number;
  readonly cols?: number;
  /** The host's TERM. */
  readonly term?: string;
  /** The control channel exists (winsize, ready); implied by a command. Default true. */
  readonly control?: boolean;
  /** The guest takes scripts over the control channel, with their output on channels of their own. */
  readonly commands?: boolean;
  /** The guest has a display, which is to have a shell as well. */
  readonly screen?: boolean;
  /** Directories shared by the host: tag of the device, absolute path in the guest. */
  readonly shares?: readonly { readonly tag: string; readonly path: string; readonly readonly?: boolean }[];
  /** A fixed IPv4 configuration, which saves DHCP: address with prefix length, gateway, name server. */
  readonly address?: { readonly address: string; readonly gateway?: string; readonly dns?: string };
};

/** A session that runs one command and ends. */
export type ExecSession = Session & {
  /** Shell text, any bytes but NUL. */
  readonly command: string | Uint8Array;
  /** The host answers the guest's `stdin` lines; else the command reads /dev/null. */
  readonly stdin?: boolean;
};

/**
 * The archive for an interactive guest (`/.nonroot/config`). Its length is a multiple of 512.
 * @throws Error for a share or address that the guest's shell would not read as one word
 */
export function sessionOverlay(session: Session): Uint8Array<ArrayBuffer> {
  const channels = session.commands ? CHANNELS : { control: CHANNELS.control };
  return writeCpio([configFile(session, (session.control ?? true) || session.commands ? channels : {})]);
}

/**
 * The archive for a guest that runs one command (`/.nonroot/config` and `/.nonroot/exec`). Its length is a multiple of 512.
 * @throws Error for a command with a NUL, or as sessionOverlay
 */
export function execOverlay(session: ExecSession): Uint8Array<ArrayBuffer> {
  const script = file('.nonroot/exec', session.command);
  if (script.type === 'file' && script.data.includes(0))
    throw new Error('Cannot run command in guest: it holds a NUL byte, every other byte is accepted');
  return writeCpio([configFile(session, { ...CHANNELS, ...(session.stdin ? { stdin: '1' } : {}) }), script]);
}

function configFile(session: Session, more: Readonly<Record<string, string>>): CpioEntry {
  const shares = session.shares?.map(({ tag, path, readonly }) => `${word(tag)}:${word(path)}${readonly ? ':ro' : ''}`);
  const variables: Record<string, string | undefined> = {
    rows: size(session.rows),
    cols: size(session.cols),
    // A strange TERM is no reason to fail: the guest has its default.
    term: session.term && /^[\w.+-]+$/.test(session.term) ? session.term : undefined,
    screen: session.screen ? '/dev/tty1' : undefined,
    shares: shares?.join(' '),
    address: session.address && word(session.address.address),
    gateway: session.address?.gateway && word(session.address.gateway),
    dns: session.address?.dns && word(session.address.dns),
    ...more,
  };
  const lines = Object.entries(variables).filter(([, value]) => value !== undefined && value !== '');
  return file('.nonroot/config', lines.map(([name, value]) => `${name}='${value}'\n`).join(''));
}

/** A terminal size that the guest's stty accepts; both sides of a pipe report 0, which says nothing. */
function size(value: number | undefined): string | undefined {
  return value !== undefined && Number.isInteger(value) && value > 0 && value < 65536 ? String(value) : undefined;
}

function word(text: string): string {
  if (!/^[\w./:@%+=,-]+$/.test(text))
    throw new Error(`Cannot configure guest: "${text}" holds characters other than letters, digits and ./:@%+=,-_`);
  return text;
}
