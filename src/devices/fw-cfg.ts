// The firmware configuration device: items by key, files by name, read through ports or by DMA.
// QEMU "QEMU Firmware Configuration (fw_cfg) Device", docs/specs/fw_cfg.rst.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

export const fwCfgLayout = struct({ key: 'u16', offset: 'u32', dmaHigh: 'u32', dmaLow: 'u32' }, { name: 'fw-cfg', version: 1 });

/** Keys of items with a fixed number. */
export const fwCfgKey = {
  signature: 0x00,
  id: 0x01,
  uuid: 0x02,
  ramSize: 0x03,
  noGraphic: 0x04,
  cpus: 0x05,
  kernelAddress: 0x07,
  kernelSize: 0x08,
  initrdAddress: 0x0a,
  initrdSize: 0x0b,
  bootDevice: 0x0c,
  numa: 0x0d,
  bootMenu: 0x0e,
  maxCpus: 0x0f,
  kernelEntry: 0x10,
  kernelData: 0x11,
  initrdData: 0x12,
  commandLineAddress: 0x13,
  commandLineSize: 0x14,
  commandLineData: 0x15,
  setupAddress: 0x16,
  setupSize: 0x17,
  setupData: 0x18,
  directory: 0x19,
  firstFile: 0x20,
  /** What is particular to x86. */
  irq0Override: 0x8002,
  hpet: 0x8004,
} as const;

/** Most files, and most characters of a name. */
const FILES_MAX = 0x3fe0;
const NAME_MAX = 55;
/** ISA bases of the device, and its length. */
export const fwCfgPorts = { base: 0x510, data: 0x511, dma: 0x514, length: 0x0c } as const;
const control = { error: 1, read: 2, skip: 4, select: 8, write: 0x10 } as const;

/** Bytes, or what makes them when the guest selects the item: always as many. */
export type FwCfgData = Uint8Array | (() => Uint8Array);
export interface FwCfgFile {
  readonly data: FwCfgData;
  /** The guest may write it, by DMA; then the bytes lie in shared memory. */
  readonly writable?: boolean;
  /** Called when the guest selects the item, before its bytes are read. */
  readonly selected?: () => void;
}
/** Contents of the device, the same on every thread. */
export interface FwCfgItems {
  readonly numbered: ReadonlyMap<number, FwCfgData>;
  readonly files: ReadonlyMap<string, FwCfgFile>;
}

export const noItems: FwCfgItems = { numbered: new Map(), files: new Map() };

const ascii = (s: string): Uint8Array => Uint8Array.from(s, (c) => c.charCodeAt(0));
/** `value` as little-endian bytes. */
export const le = (value: number | bigint, bytes: 2 | 4 | 8): Uint8Array => {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value), true);
  return out.subarray(0, bytes);
};

export interface FwCfgOptions {
  readonly arena: Arena;
  readonly memory: GuestMemory;
  readonly report?: Report;
}

export class FwCfg {
  readonly #s: ViewOf<typeof fwCfgLayout>;
  readonly #o: FwCfgOptions;
  #items = new Map<number, FwCfgFile>();

  constructor(o: FwCfgOptions) {
    this.#o = o;
    this.#s = o.arena.alloc(fwCfgLayout);
    this.fill(noItems);
  }

  /** Sets the contents; every thread of a machine gets the same. Throws for names that are too long and for too many files. */
  fill(items: FwCfgItems): void {
    const names = [...items.files.keys()].sort();
    if (names.length > FILES_MAX) throw new Error(`Cannot give fw_cfg ${names.length} files: accepted are ${FILES_MAX}`);
    const map = new Map<number, FwCfgFile>([...items.numbered].map(([key, data]) => [key, { data }]));
    for (const [i, name] of names.entries()) {
      if (name === '' || name.length > NAME_MAX || !/^[\x21-\x7e]+$/.test(name))
        throw new Error(`Cannot name a fw_cfg file "${name}": accepted are 1 to ${NAME_MAX} printable ASCII characters`);
      map.set(fwCfgKey.firstFile + i, items.files.get(name)!);
    }
    /** Made when it is read: sizes of files that are made when they are read are not known before. */
    const directory = (): Uint8Array => {
      const bytes = new Uint8Array(4 + 64 * names.length);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, names.length);
      for (const [i, name] of names.entries()) {
        const at = 4 + 64 * i;
        view.setUint32(at, bytesOf(items.files.get(name)!).length);
        view.setUint16(at + 4, fwCfgKey.firstFile + i);
        bytes.set(ascii(name), at + 8);
      }
      return bytes;
    };
    map.set(fwCfgKey.signature, { data: ascii('QEMU') });
    // The traditional interface, and DMA.
    map.set(fwCfgKey.id, { data: le(3, 4) });
    map.set(fwCfgKey.directory, { data: directory });
    this.#items = map;
  }

  reset(): void {
    Object.assign(this.#s, { key: 0, offset: 0, dmaHigh: 0, dmaLow: 0 });
  }

  map(ports: AddressSpace): void {
    ports.map(fwCfgPorts.base, 2, this.#traditional, 'fwcfg');
    ports.map(fwCfgPorts.dma, 8, this.#dmaPort, 'fwcfg.dma');
  }

  readonly #traditional: Handler = {
    max: 2,
    read: (offset) => {
      // The selector cannot be read; only bytes are in the data port.
      if (offset === 0) return 0;
      return this.#next();
    },
    write: (offset, size, value) => {
      if (offset === 0 && size === 2) this.#select(value);
    },
  };

  readonly #dmaPort: Handler = {
    max: 4,
    // "QEMU CFG", big-endian.
    read: (offset, size) => {
      const bytes = ascii('QEMU CFG').subarray(offset, offset + size);
      return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
    },
    write: (offset, size, value) => {
      if (size !== 4 || offset % 4 !== 0) return;
      if (offset === 0) this.#s.dmaHigh = swap(value);
      else {
        const at = this.#s.dmaHigh * 2 ** 32 + swap(value);
        this.#s.dmaHigh = 0;
        this.#transfer(at);
      }
    },
  };

  #select(key: number): void {
    this.#s.key = key;
    this.#s.offset = 0;
    this.#current = undefined;
    this.#items.get(key)?.selected?.();
  }

  /** Bytes of the selected item: what was made for it stays the same while it is selected. Another thread's selection is found by its key. */
  #current: { readonly key: number; readonly bytes: Uint8Array } | undefined;
  get #selected(): Uint8Array | undefined {
    const { key } = this.#s;
    if (this.#current?.key === key) return this.#current.bytes;
    const item = this.#items.get(key);
    if (item === undefined) return undefined;
    const bytes = bytesOf(item);
    this.#current = { key, bytes };
    return bytes;
  }

  #next(): number {
    const item = this.#selected;
    const at = this.#s.offset;
    if (item === undefined || at >= item.length) return 0;
    this.#s.offset = at + 1;
    return item[at]!;
  }

  /** Carries out the access that the guest describes at `at`: control, length, address, all big-endian. */
  #transfer(at: number): void {
    const { memory } = this.#o;
    const control32 = swap(memory.read32(at));
    const length = swap(memory.read32(at + 4));
    const address = swap(memory.read32(at + 8)) * 2 ** 32 + swap(memory.read32(at + 12));
    if (control32 & control.select) this.#select(control32 >>> 16);
    const ok = this.#access(control32, length, address);
    memory.write32(at, ok ? 0 : swap(control.error));
  }

  #access(what: number, length: number, address: number): boolean {
    const s = this.#s;
    const data = this.#selected ?? new Uint8Array(0);
    const left = Math.max(0, data.length - s.offset);
    const here = Math.min(length, left);
    if (what & control.read) {
      // Past the item's end, zeros are read.
      const ok =
        this.#pieces(address, here, (piece, done) => piece.set(data.subarray(s.offset + done, s.offset + done + piece.length))) &&
        this.#pieces(address + here, length - here, (piece) => piece.fill(0));
      s.offset += here;
      return ok;
    }
    if (what & control.write) {
      if (this.#items.get(s.key)?.writable !== true || length > left) return false;
      const ok = this.#pieces(address, here, (piece, done) => data.set(piece, s.offset + done), false);
      s.offset += here;
      return ok;
    }
    if (what & control.skip) s.offset += here;
    return true;
  }

  /** Runs `f` over guest memory page by page; false where some of it is no RAM. */
  #pieces(gpa: number, length: number, f: (piece: Uint8Array, done: number) => void, writes = true): boolean {
    const { memory } = this.#o;
    for (let done = 0; done < length; ) {
      const at = gpa + done;
      const whole = memory.slice(at, length - done);
      const n = whole ? length - done : Math.min(length - done, 4096 - (at % 4096));
      const piece = whole ?? memory.slice(at, n);
      if (piece === undefined) return false;
      f(piece, done);
      if (writes) memory.written(at, n);
      done += n;
    }
    return true;
  }
}

const bytesOf = ({ data }: FwCfgFile): Uint8Array => (typeof data === 'function' ? data() : data);
const swap = (v: number): number => (((v & 0xff) << 24) | ((v & 0xff00) << 8) | ((v >>> 8) & 0xff00) | ((v >>> 24) & 0xff)) >>> 0;
