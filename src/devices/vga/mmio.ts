// The register BAR of QEMU's standard VGA and of its bochs-display: EDID, the VGA's ports, VBE, byte order. QEMU, docs/specs/standard-vga.rst.
import { ones } from '../../bits/fields.ts';
import type { Handler } from '../../bus/space.ts';
import { VBE_REGISTERS } from './state.ts';
import type { Vga } from './vga.ts';

export const MMIO_BYTES = 4096;
const PORTS = 0x400;
const VBE = 0x500;
const EXTENSION = 0x600;
const LITTLE_ENDIAN = 0x1e1e1e1e;

/** `edid` may be empty; `ports` says whether the VGA's own registers are there. */
export function vgaMmio(vga: Vga, edid: Uint8Array, ports: boolean): Handler {
  return {
    read(offset, size) {
      if (offset < edid.length) {
        let value = 0;
        for (let i = 0; i < size; i++) value |= (edid[offset + i] ?? 0) << (8 * i);
        return value >>> 0;
      }
      if (ports && offset >= PORTS && offset + size <= PORTS + 0x20) {
        let value = 0;
        for (let i = 0; i < size; i++) value |= vga.readPort(0x3c0 + offset - PORTS + i) << (8 * i);
        return value >>> 0;
      }
      if (offset >= VBE && offset < VBE + 2 * VBE_REGISTERS) return size === 2 ? vga.readVbe((offset - VBE) >>> 1) : 0;
      if (offset === EXTENSION) return 8 & ones(size);
      if (offset === EXTENSION + 4) return LITTLE_ENDIAN & ones(size);
      return 0;
    },
    write(offset, size, value) {
      if (ports && offset >= PORTS && offset + size <= PORTS + 0x20) {
        for (let i = 0; i < size; i++) vga.writePort(0x3c0 + offset - PORTS + i, (value >>> (8 * i)) & 0xff);
      } else if (offset >= VBE && offset < VBE + 2 * VBE_REGISTERS && size === 2 && offset % 2 === 0)
        vga.writeVbe((offset - VBE) >>> 1, value);
    },
  };
}
