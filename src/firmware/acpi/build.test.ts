import assert from 'node:assert/strict';
import { test } from 'node:test';
import { acpiLoaderFiles, buildAcpi, linkAcpi } from './build.ts';
import { type AcpiConfig, comPorts, q35Intx } from './config.ts';

const q35 = (cpus: number, more: Partial<AcpiConfig> = {}): AcpiConfig => ({
  cpus: Array.from({ length: cpus }, (_, i) => i),
  hpet: true,
  rtc: true,
  ps2: true,
  serial: comPorts,
  fwCfg: true,
  pci: {
    mmconfig: { base: 0xb000_0000 },
    memory: [
      { base: 0xc000_0000, size: 0x3ec0_0000 },
      { base: 0x8_0000_0000, size: 0x8_0000_0000 },
    ],
    intx: q35Intx,
    isaBridge: 0x1f_0000,
  },
  ...more,
});

const BASE = 0xe0000;
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff;
const signature = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));

/** Follows RSDP → XSDT → FADT → DSDT and FACS like an operating system; checks every checksum on the way. */
const walk = (block: Uint8Array): Map<string, { at: number; bytes: Uint8Array; view: DataView }> => {
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  const found = new Map<string, { at: number; bytes: Uint8Array; view: DataView }>();
  const add = (address: number, checked = true): DataView => {
    const at = address - BASE;
    const bytes = block.subarray(at, at + view.getUint32(at + 4, true));
    if (checked) assert.equal(sum(bytes), 0, `checksum of ${signature(block, at)}`);
    const table = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    found.set(signature(block, at), { at: address, bytes, view: table });
    return table;
  };
  assert.equal(String.fromCharCode(...block.subarray(0, 8)), 'RSD PTR ');
  assert.equal(sum(block.subarray(0, 20)), 0);
  assert.equal(sum(block.subarray(0, 36)), 0);
  const xsdt = add(Number(view.getBigUint64(24, true)));
  const rsdt = add(view.getUint32(16, true));
  for (let i = 0; i < (xsdt.byteLength - 36) / 8; i++) {
    const address = Number(xsdt.getBigUint64(36 + i * 8, true));
    assert.equal(rsdt.getUint32(36 + i * 4, true), address);
    add(address);
  }
  const fadt = found.get('FACP')!.view;
  assert.equal(BigInt(fadt.getUint32(40, true)), fadt.getBigUint64(140, true));
  add(fadt.getUint32(40, true));
  add(fadt.getUint32(36, true), false);
  return found;
};

test('every table of a q35 board is reachable from the RSDP and has a right checksum', () => {
  const found = walk(linkAcpi(buildAcpi(q35(4)), BASE, 0x10000));
  assert.deepEqual([...found.keys()].sort(), ['APIC', 'DSDT', 'FACP', 'FACS', 'HPET', 'MCFG', 'RSDT', 'XSDT']);
  assert.equal(found.get('FACS')!.at % 64, 0);
  assert.equal(found.get('FACS')!.bytes.length, 64);
});

test('the FADT names the power management ports, the SMI commands and the reset register', () => {
  const { view, bytes } = walk(linkAcpi(buildAcpi(q35(1)), BASE, 0x10000)).get('FACP')!;
  assert.equal(bytes.length, 276);
  assert.deepEqual([view.getUint16(46, true), view.getUint32(48, true), bytes[52], bytes[53]], [9, 0xb2, 2, 3]);
  assert.deepEqual(
    [56, 64, 76, 80].map((at) => view.getUint32(at, true)),
    [0x600, 0x604, 0x608, 0x620],
  );
  assert.deepEqual(
    [88, 89, 91, 92].map((at) => bytes[at]),
    [4, 2, 4, 16],
  );
  assert.deepEqual(
    [148, 172, 208, 220].map((at) => Number(view.getBigUint64(at + 4, true))),
    [0x600, 0x604, 0x608, 0x620],
  );
  assert.deepEqual([bytes[116], Number(view.getBigUint64(120, true)), bytes[128]], [1, 0xcf9, 6]);
  assert.equal(view.getUint32(112, true) & 0x410, 0x400, 'reset register; fixed power button');
});

test('the MADT has an APIC for each CPU, the I/O APIC and the interrupt overrides', () => {
  const { view, bytes } = walk(linkAcpi(buildAcpi(q35(3, { cpus: [0, 2, 300], levelIrqs: [5, 10] })), BASE, 0x10000)).get(
    'APIC',
  )!;
  const entries: number[][] = [];
  for (let at = 44; at < bytes.length; at += bytes[at + 1]!) entries.push([...bytes.subarray(at, at + bytes[at + 1]!)]);
  assert.equal(view.getUint32(36, true), 0xfee0_0000);
  assert.deepEqual(entries, [
    [0, 8, 0, 0, 1, 0, 0, 0],
    [0, 8, 1, 2, 1, 0, 0, 0],
    [9, 16, 0, 0, 44, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
    [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
    [2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
    [2, 10, 0, 5, 5, 0, 0, 0, 13, 0],
    [2, 10, 0, 9, 9, 0, 0, 0, 13, 0],
    [2, 10, 0, 10, 10, 0, 0, 0, 13, 0],
    [4, 6, 255, 0, 0, 1],
    [10, 12, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0],
  ]);
});

test('the ERST tells of the registers of a store of error records: actions in order, all entries of 32 bytes', () => {
  const { view, bytes } = walk(linkAcpi(buildAcpi(q35(1, { errorRecords: 0xfebf_0000 })), BASE, 0x10000)).get('ERST')!;
  assert.deepEqual([view.getUint32(36, true), view.getUint32(44, true), bytes.length], [48, 27, 48 + 27 * 32]);
  const entries = Array.from({ length: 27 }, (_, n) => 48 + 32 * n);
  assert.deepEqual([...new Set(entries.map((at) => bytes[at]))], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16]);
  assert.deepEqual([...new Set(entries.map((at) => view.getUint32(at + 8, true)))], [0xfebf_0000, 0xfebf_0008]);
  // An operation is executed by a value of its own, then by the action's number.
  assert.deepEqual(
    entries
      .filter((at) => bytes[at] === 5)
      .map((at) => [bytes[at + 1], view.getUint32(at + 8, true), view.getUint32(at + 16, true)]),
    [
      [3, 0xfebf_0008, 0x9c],
      [3, 0xfebf_0000, 5],
    ],
  );
});

test('the DSDT nests without a gap: every package ends where its parent says', () => {
  for (const config of [
    q35(1),
    q35(255),
    { cpus: [0], virtioMmio: [{ base: 0xfeb0_0000, size: 512, gsi: 5 }], serial: comPorts },
  ]) {
    const { bytes } = walk(linkAcpi(buildAcpi(config), BASE, 0x10000)).get('DSDT')!;
    const names: string[] = [];
    /** Walks terms of the kinds Scope, Device and Name, and skips methods; returns when `end` is met exactly. */
    const terms = (from: number, end: number): void => {
      let at = from;
      const length = (): number => {
        const lead = bytes[at]!;
        const more = lead >> 6;
        let value = more ? lead & 15 : lead;
        for (let i = 0; i < more; i++) value += bytes[at + 1 + i]! * 2 ** (4 + 8 * i);
        return value;
      };
      const nameAt = (where: number): number => (bytes[where] === 0x5c ? where + 5 : where + 4);
      while (at < end) {
        const op = bytes[at] === 0x5b ? 0x5b00 + bytes[at + 1]! : bytes[at]!;
        at += op > 255 ? 2 : 1;
        if (op === 0x08) {
          at = nameAt(at);
          const data = bytes[at]!;
          if (data === 0x11 || data === 0x12) {
            at++;
            at += length();
          } else if (data === 0x0d) at = bytes.indexOf(0, at) + 1;
          else at += { 0: 1, 1: 1, 10: 2, 11: 3, 12: 5, 14: 9 }[data]!;
        } else {
          assert.ok([0x10, 0x14, 0x5b82].includes(op), `term 0x${op.toString(16)}`);
          const stop = at + length();
          const body = nameAt(at + 1 + (bytes[at]! >> 6));
          names.push(String.fromCharCode(...bytes.subarray(body - 4, body)));
          if (op !== 0x14) terms(body, stop);
          at = stop;
        }
      }
      assert.equal(at, end);
    };
    terms(36, bytes.length);
    assert.equal(names.filter((n) => /^C[0-9A-F]{3}$/.test(n)).length, config.cpus.length);
    assert.equal(names.includes('PCI0'), config.pci !== undefined);
    assert.ok(names.includes('COM1'));
  }
});

test('the fw_cfg loader script gives the same bytes as placing the tables directly', () => {
  const image = buildAcpi(q35(2));
  const files = acpiLoaderFiles(image);
  const placed: Record<string, { base: number; bytes: Uint8Array }> = {};
  const script = files['etc/table-loader']!;
  const name = (at: number): string => String.fromCharCode(...script.subarray(at, at + 56)).replace(/\0.*$/s, '');
  const view = new DataView(script.buffer, script.byteOffset, script.length);
  for (let at = 0; at < script.length; at += 128) {
    const file = name(at + 4);
    const command = view.getUint32(at, true);
    if (command === 1) placed[file] = { base: file.endsWith('rsdp') ? BASE : BASE + 64, bytes: files[file]!.slice() };
    const { bytes } = placed[file]!;
    const data = new DataView(bytes.buffer);
    if (command === 2) {
      const field = view.getUint32(at + 116, true);
      const { base } = placed[name(at + 60)]!;
      if (view.getUint8(at + 120) === 4) data.setUint32(field, data.getUint32(field, true) + base, true);
      else data.setBigUint64(field, data.getBigUint64(field, true) + BigInt(base), true);
    }
    if (command === 3) {
      const [result, start, length] = [60, 64, 68].map((offset) => view.getUint32(at + offset, true)) as [number, number, number];
      bytes[result]! -= sum(bytes.subarray(start, start + length));
    }
  }
  const direct = linkAcpi(image, BASE, 0x10000);
  assert.deepEqual(placed['etc/acpi/rsdp']!.bytes, direct.subarray(0, 36));
  assert.deepEqual(placed['etc/acpi/tables']!.bytes, direct.subarray(64));
});

test('tables that do not fit and boards without CPUs are refused', () => {
  assert.throws(
    () => linkAcpi(buildAcpi(q35(1)), BASE, 1024),
    /Cannot place ACPI tables: they have \d+ bytes, accepted are 1024/,
  );
  assert.throws(() => buildAcpi(q35(0)), /Cannot build ACPI tables: no CPUs given/);
});

test("q35's own slots have PIRQA–PIRQD, the others rotate over PIRQE–PIRQH", () => {
  assert.deepEqual(
    [0, 1, 2, 3].map((pin) => q35Intx(31, pin)),
    [16, 17, 18, 19],
  );
  assert.deepEqual(
    [0, 1, 2, 3].map((pin) => q35Intx(1, pin)),
    [21, 22, 23, 20],
  );
  assert.equal(q35Intx(30, 0), 22);
});
