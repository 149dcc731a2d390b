// Scan codes of PC keyboards: set 2, its translation into set 1, and key numbers. IBM PS/2 Hardware Interface Technical Reference (1988), "Keyboard and Auxiliary Device Controller" and "Keyboard".

/** Set 1 by set 2 code, rows of 16 from 0x00 to 0x7F, as the controller translates. */
const translation = `
  ff 43 41 3f 3d 3b 3c 58 64 44 42 40 3e 0f 29 59
  65 38 2a 70 1d 10 02 5a 66 71 2c 1f 1e 11 03 5b
  67 2e 2d 20 12 05 04 5c 68 39 2f 21 14 13 06 5d
  69 31 30 23 22 15 07 5e 6a 72 32 24 16 08 09 5f
  6b 33 25 17 18 0b 0a 60 6c 34 35 26 27 19 0c 61
  6d 73 28 74 1a 0d 62 6e 3a 36 1c 1b 75 2b 63 76
  55 56 77 78 79 7a 0e 7b 7c 4f 7d 4b 47 7e 7f 6f
  52 53 50 4c 4d 48 01 45 57 4e 51 4a 37 49 46 54`
  .trim()
  .split(/\s+/)
  .map((h) => Number.parseInt(h, 16));

/** A set 2 byte as set 1 has it. Bytes from 0x80 on stay, but for F7 (0x83) and SysRq (0x84). */
export const toSet1 = (code: number): number => (code === 0x83 ? 0x41 : code === 0x84 ? 0x54 : (translation[code] ?? code));

/** Set 2 by set 1 code, 0x00 to 0x7F. */
const set2 = Uint8Array.from({ length: 128 }, (_, code) =>
  code === 0x41 ? 0x83 : code === 0x54 ? 0x84 : translation.indexOf(code),
);

/** Key numbers with codes of their own: Pause, which has no break code. */
const pause = 0xc6;

/**
 * The bytes of a key that goes down or up. `key` is the key's set 1 code, with bit 7 for the codes behind 0xE0, as VNC and
 * libvirt number keys. Empty for numbers without a key.
 */
export function keyBytes(key: number, down: boolean, set: 1 | 2): readonly number[] {
  if (key === pause) {
    if (!down) return [];
    return set === 1 ? [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5] : [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77];
  }
  const code = key & 0x7f;
  const prefix = key & 0x80 ? [0xe0] : [];
  if (set === 1) return [...prefix, down ? code : code | 0x80];
  const two = set2[code]!;
  if (two === 0 || two === 0xff) return [];
  return down ? [...prefix, two] : [...prefix, 0xf0, two];
}
