// Keys of a keyboard by all the names that they go by, one row each: QEMU's QKeyCode, its key number (PC scan code set 1, bit 7 for those behind E0), USB HID usage (HID Usage Tables 1.12, section 10), Linux's event code (input-event-codes.h), X keysyms on a US keyboard.

/** One key. */
export interface Key {
  /** QKeyCode. */
  readonly name: string;
  /** Scan code set 1 with bit 7 for E0 codes; 0 where PC keyboards lack the key. */
  readonly number: number;
  /** Usage on HID page 7; 0 for none. */
  readonly usage: number;
  /** `KEY_*` of Linux. */
  readonly event: number;
  /** X keysyms that the key gives, without and with Shift. */
  readonly keysyms: readonly number[];
}

const row = (name: string, number: number, usage: number, event: number, ...keysyms: readonly (number | string)[]): Key => ({
  name,
  number,
  usage,
  event,
  keysyms: keysyms.map((k) => (typeof k === 'string' ? k.charCodeAt(0) : k)),
});
const letter = (name: string, number: number): Key =>
  row(name, number, 4 + name.charCodeAt(0) - 97, number, name, name.toUpperCase());

export const keys: readonly Key[] = [
  row('esc', 0x01, 0x29, 1, 0xff1b),
  row('1', 0x02, 0x1e, 2, '1', '!'),
  row('2', 0x03, 0x1f, 3, '2', '@'),
  row('3', 0x04, 0x20, 4, '3', '#'),
  row('4', 0x05, 0x21, 5, '4', '$'),
  row('5', 0x06, 0x22, 6, '5', '%'),
  row('6', 0x07, 0x23, 7, '6', '^'),
  row('7', 0x08, 0x24, 8, '7', '&'),
  row('8', 0x09, 0x25, 9, '8', '*'),
  row('9', 0x0a, 0x26, 10, '9', '('),
  row('0', 0x0b, 0x27, 11, '0', ')'),
  row('minus', 0x0c, 0x2d, 12, '-', '_'),
  row('equal', 0x0d, 0x2e, 13, '=', '+'),
  row('backspace', 0x0e, 0x2a, 14, 0xff08),
  row('tab', 0x0f, 0x2b, 15, 0xff09, 0xfe20),
  ...[...'qwertyuiop'].map((c, i) => letter(c, 0x10 + i)),
  row('bracket_left', 0x1a, 0x2f, 26, '[', '{'),
  row('bracket_right', 0x1b, 0x30, 27, ']', '}'),
  row('ret', 0x1c, 0x28, 28, 0xff0d),
  row('ctrl', 0x1d, 0xe0, 29, 0xffe3),
  ...[...'asdfghjkl'].map((c, i) => letter(c, 0x1e + i)),
  row('semicolon', 0x27, 0x33, 39, ';', ':'),
  row('apostrophe', 0x28, 0x34, 40, "'", '"'),
  row('grave_accent', 0x29, 0x35, 41, '`', '~'),
  row('shift', 0x2a, 0xe1, 42, 0xffe1),
  row('backslash', 0x2b, 0x31, 43, '\\', '|'),
  ...[...'zxcvbnm'].map((c, i) => letter(c, 0x2c + i)),
  row('comma', 0x33, 0x36, 51, ',', '<'),
  row('dot', 0x34, 0x37, 52, '.', '>'),
  row('slash', 0x35, 0x38, 53, '/', '?'),
  row('shift_r', 0x36, 0xe5, 54, 0xffe2),
  row('kp_multiply', 0x37, 0x55, 55, 0xffaa),
  row('alt', 0x38, 0xe2, 56, 0xffe9, 0xffe7),
  row('spc', 0x39, 0x2c, 57, ' '),
  row('caps_lock', 0x3a, 0x39, 58, 0xffe5),
  ...Array.from({ length: 10 }, (_, i) => row(`f${i + 1}`, 0x3b + i, 0x3a + i, 59 + i, 0xffbe + i)),
  row('num_lock', 0x45, 0x53, 69, 0xff7f),
  row('scroll_lock', 0x46, 0x47, 70, 0xff14),
  row('kp_7', 0x47, 0x5f, 71, 0xffb7, 0xff95),
  row('kp_8', 0x48, 0x60, 72, 0xffb8, 0xff97),
  row('kp_9', 0x49, 0x61, 73, 0xffb9, 0xff9a),
  row('kp_subtract', 0x4a, 0x56, 74, 0xffad),
  row('kp_4', 0x4b, 0x5c, 75, 0xffb4, 0xff96),
  row('kp_5', 0x4c, 0x5d, 76, 0xffb5, 0xff9d),
  row('kp_6', 0x4d, 0x5e, 77, 0xffb6, 0xff98),
  row('kp_add', 0x4e, 0x57, 78, 0xffab),
  row('kp_1', 0x4f, 0x59, 79, 0xffb1, 0xff9c),
  row('kp_2', 0x50, 0x5a, 80, 0xffb2, 0xff99),
  row('kp_3', 0x51, 0x5b, 81, 0xffb3, 0xff9b),
  row('kp_0', 0x52, 0x62, 82, 0xffb0, 0xff9e),
  row('kp_decimal', 0x53, 0x63, 83, 0xffae, 0xff9f),
  row('sysrq', 0x54, 0x46, 99, 0xff15),
  row('less', 0x56, 0x64, 86),
  row('f11', 0x57, 0x44, 87, 0xffc8),
  row('f12', 0x58, 0x45, 88, 0xffc9),
  row('kp_equals', 0x59, 0x67, 117, 0xffbd),
  row('f13', 0x5d, 0x68, 183, 0xffca),
  row('f14', 0x5e, 0x69, 184, 0xffcb),
  row('f15', 0x5f, 0x6a, 185, 0xffcc),
  row('hiragana', 0x77, 0x93, 91, 0xff25),
  row('f16', 0x55, 0x6b, 186, 0xffcd),
  row('f17', 0x83, 0x6c, 187, 0xffce),
  row('f18', 0xf7, 0x6d, 188, 0xffcf),
  row('f19', 0x84, 0x6e, 189, 0xffd0),
  row('f20', 0x5a, 0x6f, 190, 0xffd1),
  row('f21', 0x74, 0x70, 191, 0xffd2),
  row('f22', 0xf9, 0x71, 192, 0xffd3),
  row('f23', 0x6d, 0x72, 193, 0xffd4),
  row('f24', 0x6f, 0x73, 194, 0xffd5),
  row('katakanahiragana', 0x70, 0x88, 93, 0xff27),
  row('lang2', 0x71, 0x91, 123, 0xff34),
  row('lang1', 0x72, 0x90, 122, 0xff31),
  row('ro', 0x73, 0x87, 89),
  row('henkan', 0x79, 0x8a, 92, 0xff23),
  row('muhenkan', 0x7b, 0x8b, 94, 0xff22),
  row('yen', 0x7d, 0x89, 124, 0xa5),
  row('kp_comma', 0x7e, 0x85, 121, 0xffac),
  row('audioprev', 0x90, 0, 165, 0x1008ff16),
  row('audionext', 0x99, 0, 163, 0x1008ff17),
  row('kp_enter', 0x9c, 0x58, 96, 0xff8d),
  row('ctrl_r', 0x9d, 0xe4, 97, 0xffe4),
  row('audiomute', 0xa0, 0x7f, 113, 0x1008ff12),
  row('calculator', 0xa1, 0, 140, 0x1008ff1d),
  row('audioplay', 0xa2, 0, 164, 0x1008ff14),
  row('audiostop', 0xa4, 0, 166, 0x1008ff15),
  row('volumedown', 0xae, 0x81, 114, 0x1008ff11),
  row('volumeup', 0xb0, 0x80, 115, 0x1008ff13),
  row('ac_home', 0xb2, 0, 172, 0x1008ff18),
  row('kp_divide', 0xb5, 0x54, 98, 0xffaf),
  row('print', 0xb7, 0x46, 99, 0xff61),
  row('alt_r', 0xb8, 0xe6, 100, 0xffea, 0xfe03, 0xff7e),
  row('pause', 0xc6, 0x48, 119, 0xff13, 0xff6b),
  row('home', 0xc7, 0x4a, 102, 0xff50),
  row('up', 0xc8, 0x52, 103, 0xff52),
  row('pgup', 0xc9, 0x4b, 104, 0xff55),
  row('left', 0xcb, 0x50, 105, 0xff51),
  row('right', 0xcd, 0x4f, 106, 0xff53),
  row('end', 0xcf, 0x4d, 107, 0xff57),
  row('down', 0xd0, 0x51, 108, 0xff54),
  row('pgdn', 0xd1, 0x4e, 109, 0xff56),
  row('insert', 0xd2, 0x49, 110, 0xff63),
  row('delete', 0xd3, 0x4c, 111, 0xffff),
  row('meta_l', 0xdb, 0xe3, 125, 0xffeb, 0xffed),
  row('meta_r', 0xdc, 0xe7, 126, 0xffec, 0xffee),
  row('compose', 0xdd, 0x65, 127, 0xff67, 0xff20),
  row('menu', 0x9e, 0x76, 139),
  row('power', 0xde, 0x66, 116, 0x1008ff2a),
  row('sleep', 0xdf, 0, 142, 0x1008ff2f),
  row('wake', 0xe3, 0, 143, 0x1008ff2b),
  row('find', 0xc1, 0x7e, 136, 0xff68),
  row('ac_bookmarks', 0xe6, 0, 156, 0x1008ff30),
  row('ac_refresh', 0xe7, 0, 173, 0x1008ff73),
  row('stop', 0xe8, 0x78, 128, 0xff69),
  row('ac_forward', 0xe9, 0, 159, 0x1008ff27),
  row('ac_back', 0xea, 0, 158, 0x1008ff26),
  row('computer', 0xeb, 0, 157, 0x1008ff33),
  row('mail', 0xec, 0, 155, 0x1008ff19),
  row('mediaselect', 0xed, 0, 226, 0x1008ff32),
  row('again', 0x85, 0x79, 129, 0xff66),
  row('props', 0x86, 0xa3, 130),
  row('undo', 0x87, 0x7a, 131, 0xff65),
  row('front', 0x8c, 0x77, 132),
  row('copy', 0xf8, 0x7c, 133),
  row('open', 0x64, 0x74, 134),
  row('paste', 0x65, 0x7d, 135),
  row('cut', 0xbc, 0x7b, 137),
  row('lf', 0x5b, 0, 101),
  row('help', 0xf5, 0x75, 138, 0xff6a),
];

const only = <K>(pairs: readonly (readonly [K, Key])[]): ReadonlyMap<K, Key> => new Map(pairs.toReversed());
const byName = new Map(keys.map((k) => [k.name, k]));
const byNumber = only(keys.filter((k) => k.number !== 0).map((k) => [k.number, k] as const));
const byKeysym = only(keys.flatMap((k) => k.keysyms.map((s) => [s, k] as const)));

/** The key of a QKeyCode; `asterisk` is another name of one. */
export const keyNamed = (name: string): Key | undefined => byName.get(name === 'asterisk' ? 'kp_multiply' : name);
/** The key of a key number: scan code set 1, bit 7 for E0 codes. */
export const keyNumbered = (number: number): Key | undefined => byNumber.get(number);
/** The key that gives an X keysym on a US keyboard. */
export const keyOfKeysym = (keysym: number): Key | undefined => byKeysym.get(keysym);
/** All QKeyCodes, for QMP's schema. */
export const keyNames: readonly string[] = ['unmapped', 'asterisk', ...keys.map((k) => k.name)];
