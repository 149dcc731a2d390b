// Input device: keyboard, mouse or tablet as Linux's evdev sees them. Virtual I/O Device (VIRTIO) 1.2, section 5.8; event types and codes are those of Linux's input-event-codes.h.
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { VirtioCore, VirtioModel } from './core.ts';

export const inputLayout = struct({ select: 'u8', subsel: 'u8' }, { name: 'virtio-input', version: 1 });
export type InputState = ViewOf<typeof inputLayout>;

/** Event types. */
export const Ev = { syn: 0, key: 1, relative: 2, absolute: 3, led: 0x11, repeat: 0x14 } as const;

/** What a device is. */
export interface InputKind {
  readonly name: string;
  readonly serial: string | undefined;
  readonly product: number;
  /** Codes by event type. */
  readonly codes: Readonly<Record<number, readonly number[]>>;
  /** Largest value of absolute axes; they begin at 0. */
  readonly axisMax?: number;
}

/** One event, without its time. */
export interface EvdevEvent {
  readonly type: number;
  readonly code: number;
  readonly value: number;
}

const Select = { name: 1, serial: 2, ids: 3, properties: 0x10, events: 0x11, axis: 0x12 } as const;
const HEAD = 8;
const DATA = 128;
const EVENT_BYTES = 8;
const VIRTUAL_BUS = 6;
const VENDOR = 0x0627;

const le16 = (n: number): number[] => [n & 0xff, n >>> 8];
const le32 = (n: number): number[] => [...le16(n & 0xffff), ...le16(n >>> 16)];
const ascii = (text: string): number[] => [...text].map((c) => c.charCodeAt(0)).slice(0, DATA);

/** A bit for each number. */
function bitmap(numbers: readonly number[]): number[] {
  const out = new Array<number>(Math.floor(Math.max(-1, ...numbers) / 8) + 1).fill(0);
  for (const n of numbers) out[n >>> 3]! |= 1 << (n & 7);
  return out;
}

export function inputModel(s: InputState, kind: InputKind): VirtioModel {
  const data = (): readonly number[] => {
    switch (s.select) {
      case Select.name:
        return ascii(kind.name);
      case Select.serial:
        return kind.serial === undefined ? [] : ascii(kind.serial);
      case Select.ids:
        return [...le16(VIRTUAL_BUS), ...le16(VENDOR), ...le16(kind.product), ...le16(1)];
      case Select.events:
        return s.subsel in kind.codes ? bitmap(kind.codes[s.subsel]!) : [];
      case Select.axis:
        if (!kind.codes[Ev.absolute]?.includes(s.subsel)) return [];
        return [0, kind.axisMax ?? 0, 0, 0, 0].flatMap(le32);
      default:
        return [];
    }
  };
  return {
    id: 18,
    queues: [64, 64],
    features: 0n,
    config: {
      length: HEAD + DATA,
      read: (offset) => {
        if (offset === 0) return s.select;
        if (offset === 1) return s.subsel;
        return offset === 2 ? data().length : offset < HEAD ? 0 : (data()[offset - HEAD] ?? 0);
      },
      write: (offset, byte) => {
        if (offset === 0) s.select = byte;
        else if (offset === 1) s.subsel = byte;
      },
    },
  };
}

/** The I/O side: sends events, and hears of the guest's (LEDs). */
export function inputIo(core: VirtioCore, heard: (e: EvdevEvent) => void): { send(events: readonly EvdevEvent[]): void } {
  core.serve(1, () => {
    for (let chains = core.take(1); chains.length > 0; chains = core.take(1)) {
      for (const chain of chains) {
        const bytes = chain.out.bytes(0, EVENT_BYTES);
        if (bytes.length < EVENT_BYTES) continue;
        const view = new DataView(bytes.buffer);
        heard({ type: view.getUint16(0, true), code: view.getUint16(2, true), value: view.getInt32(4, true) });
      }
      core.give(
        1,
        chains.map((c) => [c, 0]),
      );
    }
  });
  return {
    /** Events of one moment; lost, all of them, where the driver has no room. */
    send(events) {
      const all = [...events, { type: Ev.syn, code: 0, value: 0 }];
      const chains = core.take(0, all.length);
      if (chains.length < all.length) {
        core.untake(0, chains);
        return;
      }
      core.give(
        0,
        chains.map((chain, i) => {
          const e = all[i]!;
          return [chain, chain.in.write(0, Uint8Array.from([...le16(e.type), ...le16(e.code), ...le32(e.value)]))];
        }),
      );
    },
  };
}
