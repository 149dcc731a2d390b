// What the page and its server say to each other: commands as JSON, and what the server pushes. Shared by both ends.

type Kind = 'text' | 'number' | 'text?' | 'flag?';
type Fields = Readonly<Record<string, Kind>>;
type ValueOfKind<K> = K extends 'number'
  ? number
  : K extends 'flag?'
    ? boolean | undefined
    : K extends 'text?'
      ? string | undefined
      : string;
type RequiredNames<F> = { [N in keyof F]: F[N] extends `${string}?` ? never : N }[keyof F];
type OptionalNames<F> = { [N in keyof F]: F[N] extends `${string}?` ? N : never }[keyof F];
type ArgsOf<F> = { readonly [N in RequiredNames<F>]: ValueOfKind<F[N]> } & {
  readonly [N in OptionalNames<F>]?: ValueOfKind<F[N]>;
};

/** Commands and the fields that they take; sent as `POST /api/NAME`. */
export const commands = {
  host: {},
  act: { uuid: 'text', action: 'text' },
  guest: { uuid: 'text' },
  create: {
    name: 'text',
    memory: 'text',
    cpus: 'number',
    disk: 'text?',
    cdrom: 'text?',
    kernel: 'text?',
    initrd: 'text?',
    append: 'text?',
    network: 'text',
    machine: 'text',
    display: 'flag?',
    start: 'flag?',
  },
  define: { xml: 'text' },
  snapshots: { uuid: 'text' },
  snapshotCreate: { uuid: 'text', name: 'text' },
  snapshotRevert: { uuid: 'text', name: 'text' },
  snapshotDelete: { uuid: 'text', name: 'text' },
} as const satisfies Readonly<Record<string, Fields>>;

export type CommandName = keyof typeof commands;
export type CommandArgs<N extends CommandName> = ArgsOf<(typeof commands)[N]>;

/** What each command answers, as JSON. */
export interface Answers {
  host: { readonly hostname: string; readonly version: string; readonly networks: readonly string[] };
  act: null;
  guest: GuestDetail;
  create: { readonly uuid: string };
  define: { readonly uuid: string };
  snapshots: readonly Snapshot[];
  snapshotCreate: null;
  snapshotRevert: null;
  snapshotDelete: null;
}

export interface GuestDetail {
  readonly persistent: boolean;
  readonly autostart: boolean;
  readonly saved: boolean;
  /** The guest's document: of the running guest, and as it will start next. */
  readonly live: string;
  readonly config: string;
  readonly display: 'vnc' | 'none';
}
export interface Snapshot {
  readonly name: string;
  readonly current: boolean;
  /** Seconds since 1970, where the document says so. */
  readonly created: number | null;
}

/** libvirt's numbers of states. */
export const states = ['no state', 'running', 'idle', 'paused', 'shutting down', 'shut off', 'crashed', 'suspended'] as const;
const running = [1, 2, 4];
const off = [0, 5, 6];
export const isActive = (state: number): boolean => !off.includes(state);

export interface Action {
  readonly label: string;
  /** States in which it is offered. */
  readonly when: readonly number[];
  /** What the user is asked before. */
  readonly confirm?: string;
}
export const actions = {
  start: { label: 'Start', when: off },
  resume: { label: 'Resume', when: [3, 7] },
  pause: { label: 'Pause', when: running },
  shutdown: { label: 'Shut down', when: running },
  reboot: { label: 'Reboot', when: running },
  reset: { label: 'Reset', when: [...running, 3], confirm: 'Reset it as by the button? What it has not written is lost.' },
  destroy: { label: 'Power off', when: [...running, 3, 7], confirm: 'Power it off at once? What it has not written is lost.' },
  remove: {
    label: 'Delete guest',
    when: off,
    confirm: 'Its disk files stay; its snapshots’ records and saved state go.',
  },
} as const satisfies Readonly<Record<string, Action>>;
export type ActionName = keyof typeof actions;

/** A guest with its counters; rates are for the reader to make of two of them. */
export interface GuestSample {
  readonly name: string;
  readonly uuid: string;
  readonly id: number | null;
  readonly state: number;
  readonly cpus: number;
  /** Nanoseconds of processor time since its start. */
  readonly cpuTime: number;
  /** KiB. */
  readonly memory: number;
  readonly memoryMax: number;
  /** Bytes since its start; null where nobody counts. */
  readonly disk: number | null;
  readonly network: number | null;
}

/** Messages of `/ws/events`, as JSON. */
export type Push =
  | { readonly kind: 'guests'; readonly at: number; readonly guests: readonly GuestSample[] }
  | { readonly kind: 'event'; readonly at: number; readonly name: string; readonly text: string }
  | { readonly kind: 'lost'; readonly text: string };

/** Checks what came for a command. @throws Error with one line that names the field */
export function checkArgs<N extends CommandName>(name: N, given: unknown): CommandArgs<N> {
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new Error(`Cannot take ${name}: its body is no object`);
  const fields: Fields = commands[name];
  const values = given as Readonly<Record<string, unknown>>;
  for (const key of Object.keys(values)) {
    if (!Object.hasOwn(fields, key))
      throw new Error(
        `Cannot take ${name}: found field "${key.slice(0, 40)}", accepted are ${Object.keys(fields).join(', ') || 'none'}`,
      );
  }
  for (const [key, kind] of Object.entries(fields)) {
    const value = values[key];
    if (value === undefined && kind.endsWith('?')) continue;
    const wanted = kind.startsWith('text') ? 'string' : kind.startsWith('flag') ? 'boolean' : 'number';
    if (typeof value !== wanted || (wanted === 'number' && !Number.isFinite(value)))
      throw new Error(
        `Cannot take ${name}: ${key} is ${value === undefined ? 'missing' : `a ${typeof value}`}, accepted is a ${wanted}`,
      );
  }
  return given as CommandArgs<N>;
}
