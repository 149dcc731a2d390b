import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as a from './aml.ts';
import { busWindow, interrupt, io, irq, memory32, memoryWindow, template } from './resources.ts';

const hex = (bytes: Uint8Array): string => [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(' ');

test('integers take the shortest form', () => {
  assert.equal(hex(a.int(0)), '00');
  assert.equal(hex(a.int(1)), '01');
  assert.equal(hex(a.int(0xff)), '0a ff');
  assert.equal(hex(a.int(0x100)), '0b 00 01');
  assert.equal(hex(a.int(0x1_0000)), '0c 00 00 01 00');
  assert.equal(hex(a.int(0x1_0000_0000)), '0e 00 00 00 00 01 00 00 00');
  assert.throws(() => a.int(-1), /Cannot encode AML integer/);
});

test('names are padded, joined and checked', () => {
  assert.equal(hex(a.path('\\_SB')), '5c 5f 53 42 5f');
  assert.equal(hex(a.path('^AB')), '5e 41 42 5f 5f');
  assert.equal(hex(a.path('\\')), '5c 00');
  assert.equal(hex(a.path('A.B')), '2e 41 5f 5f 5f 42 5f 5f 5f');
  assert.equal(hex(a.path('A.B.C')).slice(0, 5), '2f 03');
  assert.throws(() => a.path('TOOLONG'), /Cannot encode AML name: "TOOLONG"/);
  assert.throws(() => a.path('1AB'), /no digit first/);
});

test('a package length counts itself, in one to four bytes', () => {
  const start = (n: number): string => hex(a.scope('\\', new Uint8Array(n)).subarray(1, 5));
  assert.match(start(60), /^3f /); // 60 + "\" and its null name + 1
  assert.match(start(61), /^41 04 /); // 61 + 2 + 2 = 65
  assert.match(start(4091), /^4f ff /); // 4095
  assert.match(start(4092), /^81 00 01 /); // one more needs a third byte: 4097
  assert.match(start(2 ** 20), /^c6 00 00 01$/);
});

test('EISA ids and UUIDs have the byte order of the specification', () => {
  assert.equal(hex(a.eisaId('PNP0A03')), '0c 41 d0 0a 03');
  assert.equal(hex(a.hid('ACPI0007')), '0d 41 43 50 49 30 30 30 37 00');
  assert.equal(hex(a.uuid('33DB4D5B-1FF7-401C-9657-7441C03DD766')).slice(12), '5b 4d db 33 f7 1f 1c 40 96 57 74 41 c0 3d d7 66');
  assert.throws(() => a.eisaId('pnp0A03'), /Cannot encode EISA id/);
});

test('resource descriptors have the layouts of chapter 6.4', () => {
  assert.equal(hex(irq(4)), '22 10 00');
  assert.equal(hex(io(0x3f8, 8)), '47 01 f8 03 f8 03 01 08');
  assert.equal(hex(memory32(0xfed0_0000, 0x400)), '86 09 00 01 00 00 d0 fe 00 04 00 00');
  assert.equal(hex(interrupt(5, 'edge')), '89 06 00 03 01 05 00 00 00');
  assert.equal(hex(busWindow(0, 255)), '88 0d 00 02 0c 00 00 00 00 00 ff 00 00 00 00 01');
  assert.equal(memoryWindow(0xc000_0000, 0x1000)[0], 0x87);
  assert.equal(memoryWindow(0x8_0000_0000, 0x1000)[0], 0x8a);
  assert.equal(hex(template(irq(1))), '11 08 0a 05 22 02 00 79 00');
});
