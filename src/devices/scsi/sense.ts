// SCSI status and sense data. SPC-4 (T10/1731-D), sections 4.5 and 6.39; ASC and ASCQ of annex D.

/** Sense key, additional sense code and its qualifier. */
export interface Sense {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
}

const sense = (key: number, asc: number, ascq = 0): Sense => ({ key, asc, ascq });

export const status = { good: 0, check: 2, busy: 8 } as const;

export const senses = {
  none: sense(0, 0),
  noMedium: sense(2, 0x3a, 0),
  noMediumOpen: sense(2, 0x3a, 2),
  becoming: sense(2, 4, 1),
  readError: sense(3, 0x11),
  writeError: sense(3, 0x0c),
  hardware: sense(4, 0x44),
  badOpcode: sense(5, 0x20),
  badLba: sense(5, 0x21),
  badField: sense(5, 0x24),
  badLun: sense(5, 0x25),
  badParameter: sense(5, 0x26),
  badLength: sense(5, 0x1a),
  savingNotSupported: sense(5, 0x39),
  removalPrevented: sense(5, 0x53, 2),
  incompatible: sense(5, 0x30),
  mediumChanged: sense(6, 0x28),
  reset: sense(6, 0x29),
  capacityChanged: sense(6, 0x2a, 9),
  ejectRequested: sense(6, 0x5a, 1),
  writeProtected: sense(7, 0x27),
  noSpace: sense(7, 0x27, 7),
} as const;

/** Fixed format sense data, 18 bytes (SPC-4, section 4.5.3). */
export function fixedSense(s: Sense): Uint8Array {
  const bytes = new Uint8Array(18);
  bytes.set([0x70, 0, s.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, s.asc, s.ascq]);
  return bytes;
}

/** Descriptor format sense data, 8 bytes (SPC-4, section 4.5.2). */
export const descriptorSense = (s: Sense): Uint8Array => Uint8Array.of(0x72, s.key, s.asc, s.ascq, 0, 0, 0, 0);
