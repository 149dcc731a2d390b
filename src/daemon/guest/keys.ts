// Key codes of clients as the emulator's numbers: set 1 scan codes, extended ones with bit 7. Linux input-event-codes.h; QEMU "qnum".
import { libvirtError } from '../../rpc/libvirt/errors.ts';

/** Linux codes from 96 on that are not their own number. */
const extended: Readonly<Record<number, number>> = {
  ...{ 96: 0x9c, 97: 0x9d, 98: 0xb5, 99: 0x54, 100: 0xb8, 102: 0xc7, 103: 0xc8, 104: 0xc9, 105: 0xcb, 106: 0xcd },
  ...{ 107: 0xcf, 108: 0xd0, 109: 0xd1, 110: 0xd2, 111: 0xd3, 113: 0xa0, 114: 0xae, 115: 0xb0, 116: 0xde, 117: 0x59 },
  ...{ 119: 0xc6, 125: 0xdb, 126: 0xdc, 127: 0xdd, 140: 0xa1, 142: 0xdf, 143: 0xe3, 158: 0xea, 159: 0xe9, 163: 0x99, 164: 0xa2 },
};
const highestSame = 88;

/** libvirt's numbers of code sets. */
const codeset = { linux: 0, xt: 1, atset1: 2, qnum: 9 } as const;

/** @throws {LibvirtError} for a code or a set that has no number here */
export function keyNumber(set: number, code: number): number {
  if (set === codeset.qnum) return code;
  if (set === codeset.xt || set === codeset.atset1) return code > 0xff ? (code & 0x7f) | 0x80 : code;
  if (set !== codeset.linux) throw libvirtError('configUnsupported', 'qemu', `key code set ${set} is not supported`);
  const number = code <= highestSame ? code : extended[code];
  if (number === undefined || code === 0) {
    throw libvirtError('internalError', 'qemu', `cannot translate keycode ${code} of linux codeset to rfb keycode`);
  }
  return number;
}
