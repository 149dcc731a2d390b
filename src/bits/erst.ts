// Numbers of ACPI's error serialization, which the table tells and the device carries out. ACPI Specification 6.4, section 18.5.1.1
// (serialization actions).

/** Serialization actions. */
export const erstAction = {
  beginWrite: 0x0,
  beginRead: 0x1,
  beginClear: 0x2,
  end: 0x3,
  setOffset: 0x4,
  execute: 0x5,
  checkBusy: 0x6,
  getStatus: 0x7,
  getIdentifier: 0x8,
  setIdentifier: 0x9,
  getCount: 0xa,
  beginDummyWrite: 0xb,
  getRange: 0xd,
  getRangeLength: 0xe,
  getRangeAttributes: 0xf,
  getTimings: 0x10,
} as const;

/** The device's two registers, of 64 bits each, and the value without which nothing is executed. */
export const erstRegister = { action: 0, value: 8, bytes: 16 } as const;
export const ERST_EXECUTE = 0x9c;
