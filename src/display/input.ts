// Input of keyboards and pointers on its way from whoever types (VNC, a monitor, a page) to the device of the guest that listens.
import { type Key, keyNamed } from './keys.ts';

/** Pointer buttons as QEMU names them. Wheels are buttons that go down and up. */
export const buttons = [
  'left',
  'middle',
  'right',
  'wheel-up',
  'wheel-down',
  'side',
  'extra',
  'wheel-left',
  'wheel-right',
] as const;
export type Button = (typeof buttons)[number];

/** One thing that happened. Positions are 0 to 32767 over the picture's width or height. */
export type InputEvent =
  | { readonly kind: 'key'; readonly key: Key; readonly down: boolean }
  | { readonly kind: 'button'; readonly button: Button; readonly down: boolean }
  | { readonly kind: 'relative'; readonly axis: 'x' | 'y'; readonly value: number }
  | { readonly kind: 'absolute'; readonly axis: 'x' | 'y'; readonly value: number };

export const ABSOLUTE_MAX = 0x7fff;

/** A device of the guest. */
export interface InputDevice {
  /** As `query-mice` names it. */
  readonly name: string;
  /** What it takes: buttons go to the pointer that takes positions or movements. Nothing while the guest has switched it off. */
  readonly kinds: readonly ('key' | 'relative' | 'absolute')[];
  /** Whether the guest's driver listens; the one that was plugged in last and listens is served. */
  listening(): boolean;
  /** LEDs as the guest set them; keyboards only. */
  leds?(): Leds;
  /** The display that it belongs to: others do not send to it. */
  readonly seat?: Seat | undefined;
  /** Events that belong together. */
  take(events: readonly InputEvent[]): void;
}

/** LEDs of a keyboard. */
export interface Leds {
  readonly scroll: boolean;
  readonly num: boolean;
  readonly caps: boolean;
}

/** A display by its device's name, and which of the device's it is. */
export interface Seat {
  readonly display: string;
  readonly head: number;
}
const isSame = (a: Seat | undefined, b: Seat | undefined): boolean => a?.display === b?.display && a?.head === b?.head;

/** Where somebody's input goes. */
export interface InputSink {
  send(events: readonly InputEvent[]): void;
  key(key: Key, down: boolean): void;
  /** The pointer that is served takes positions. */
  readonly absolute: boolean;
  /** LEDs of the keyboard that is served. */
  readonly leds: Leds | undefined;
  /** Calls `f` when another pointer may be the one that is served. */
  onChange(f: () => void): () => void;
}

export class InputRouter implements InputSink {
  readonly #devices: InputDevice[] = [];
  readonly #down = new Set<Key>();
  readonly #changed = new Set<() => void>();

  /** Plugs a device in; the result takes it out again. */
  add(device: InputDevice): () => void {
    this.#devices.unshift(device);
    this.#tell();
    return () => {
      const i = this.#devices.indexOf(device);
      if (i >= 0) this.#devices.splice(i, 1);
      this.#tell();
    };
  }

  /** For who sits before a display: its own devices come before those that belong to none. */
  at(seat: Seat): InputSink {
    const router = this;
    return {
      send: (events) => router.send(events, seat),
      key: (key, down) => router.send([{ kind: 'key', key, down }], seat),
      get absolute() {
        return router.#absolute(seat);
      },
      get leds() {
        return router.#served(seat, 'key')?.leds?.();
      },
      onChange: (f) => router.onChange(f),
    };
  }

  onChange(f: () => void): () => void {
    this.#changed.add(f);
    return () => this.#changed.delete(f);
  }
  /** What a device takes is another thing than before. */
  changed(): void {
    this.#tell();
  }
  #tell(): void {
    for (const f of this.#changed) f();
  }

  #served(seat: Seat | undefined, ...kinds: readonly ('key' | 'relative' | 'absolute')[]): InputDevice | undefined {
    const all = this.#devices.filter((d) => kinds.some((k) => d.kinds.includes(k)));
    const own = seat ? all.filter((d) => isSame(d.seat, seat)) : [];
    const fit = own.length > 0 ? own : all.filter((d) => d.seat === undefined);
    return fit.find((d) => d.listening()) ?? fit[0];
  }
  #absolute(seat?: Seat): boolean {
    return this.#served(seat, 'absolute', 'relative')?.kinds.includes('absolute') ?? false;
  }

  get absolute(): boolean {
    return this.#absolute();
  }

  get leds(): Leds | undefined {
    return this.#served(undefined, 'key')?.leds?.();
  }

  /** All pointers, the served one first, as `query-mice` shows them. */
  pointers(): readonly { name: string; absolute: boolean; current: boolean }[] {
    const current = this.#served(undefined, 'absolute', 'relative');
    return this.#devices
      .filter((d) => d.kinds.some((kind) => kind !== 'key'))
      .map((d) => ({ name: d.name, absolute: d.kinds.includes('absolute'), current: d === current }));
  }

  /** Sends events, those of one device together and in order. Keys that are repeated stay repeated. */
  send(events: readonly InputEvent[], seat?: Seat): void {
    const batches = new Map<InputDevice, InputEvent[]>();
    for (const e of events) {
      if (e.kind === 'key') {
        if (e.down) this.#down.add(e.key);
        else this.#down.delete(e.key);
      }
      const device = e.kind === 'button' ? this.#served(seat, 'absolute', 'relative') : this.#served(seat, e.kind);
      if (device === undefined) continue;
      const batch = batches.get(device);
      if (batch === undefined) batches.set(device, [e]);
      else batch.push(e);
    }
    for (const [device, batch] of batches) device.take(batch);
  }

  key(key: Key, down: boolean): void {
    this.send([{ kind: 'key', key, down }]);
  }

  /** Lets go of all keys, as when a window loses the focus. */
  releaseAll(): void {
    for (const key of [...this.#down]) this.key(key, false);
  }
}

/** Presses keys in order and lets go of them in the opposite order after `hold` ms. */
export async function sendKeys(
  input: InputRouter,
  keys: readonly Key[],
  hold: number,
  sleep: (ms: number) => Promise<void>,
): Promise<void> {
  for (const key of keys) input.key(key, true);
  await sleep(hold);
  for (const key of keys.toReversed()) input.key(key, false);
}

/** Text as keys of a US keyboard: each character with Shift where it needs it. Characters without a key are left out. */
export function typed(text: string, keyOf: (keysym: number) => Key | undefined): readonly (readonly Key[])[] {
  const shift = keyNamed('shift')!;
  return [...text].flatMap((c) => {
    const keysym = c === '\n' ? 0xff0d : c === '\t' ? 0xff09 : c.codePointAt(0)!;
    const key = keyOf(keysym);
    if (key === undefined) return [];
    return [key.keysyms.indexOf(keysym) === 1 ? [shift, key] : [key]];
  });
}
