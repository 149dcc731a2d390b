// `info qtree` and `info mtree` of the boards beside those of real QEMU: the same chips at the same places with the same properties, the
// same regions of memory in the same order of depth, before a guest runs and once firmware has placed everything.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emulator, noQemu, OURS, QEMU, type Running } from './process.ts';

const args = (board: string, ...more: string[]): string[] => [
  ...['-M', board, '-accel', 'tcg', '-m', '128', '-display', 'none', '-nodefaults', '-S', '-smp', '2'],
  ...['-chardev', 'null,id=c0', '-device', 'isa-serial,chardev=c0,id=s0', ...more],
];
const ask = async (e: Running, line: string): Promise<string> =>
  String(await e.qmp.execute('human-monitor-command', { 'command-line': line })).replaceAll('\r', '');

/** Lines below those that are indented less: `bus: a/dev: b/…`. */
function nested(text: string): { path: string; line: string }[] {
  const above: { depth: number; text: string }[] = [];
  return text.split('\n').flatMap((row) => {
    const line = row.trim();
    if (line === '') return [];
    const depth = row.length - row.trimStart().length;
    while (above.length > 0 && above.at(-1)!.depth >= depth) above.pop();
    const path = above.map((a) => a.text).join('/');
    above.push({ depth, text: line });
    return [{ path, line }];
  });
}

/** Devices by the buses above them, with their properties; one of a name at a place has a number. */
function devices(text: string): Map<string, Map<string, string>> {
  const found = new Map<string, Map<string, string>>();
  let at = new Map<string, string>();
  const counts = new Map<string, number>();
  for (const { path, line } of nested(text)) {
    if (line.startsWith('dev: ')) {
      const name = `${path.replaceAll(', id ""', '')}/${line}`;
      const n = counts.get(name) ?? 0;
      counts.set(name, n + 1);
      at = new Map();
      found.set(`${name} ${n}`, at);
    } else if (line.startsWith('bus: ')) at = new Map();
    else {
      const [, name, value] = /^(gpio-\S+ "[^"]*"|mmio|class|bar \d|type|[\w-]+)(?: =|:)? (.*)$/.exec(line) ?? [];
      if (name !== undefined) at.set(name, value ?? '');
    }
  }
  return found;
}

/** What QEMU's boards have and ours have not. */
const qemuAlone = /dev: (kvmvapic|sgabios|virtio-\w+-device)/;
/** Properties whose values differ with a reason: our own file names, and what is not there to be switched. */
const differing = new Set([
  'romfile',
  'romsize',
  'xres',
  'yres',
  'mmio',
  'io-reserve',
  'mem-reserve',
  'pref32-reserve',
  'pref64-reserve',
  'bus-reserve',
]);

const boards = ['pc', 'q35', 'microvm'];
const cards: Readonly<Record<string, readonly string[]>> = {
  pc: ['-device', 'VGA,id=v0', '-device', 'e1000,id=n0,romfile='],
  q35: ['-device', 'VGA,id=v0', '-device', 'pcie-root-port,id=p0', '-device', 'e1000e,id=n0,romfile=,bus=p0'],
  microvm: [],
};

for (const board of boards)
  test(`info qtree of ${board} has QEMU's chips and devices at QEMU's places`, { skip: noQemu, timeout: 90_000 }, async (t) => {
    const [ours, qemu] = await Promise.all([OURS, QEMU].map((p) => emulator(t, p, args(board, ...cards[board]!))));
    const [a, b] = [devices(await ask(ours!, 'info qtree')), devices(await ask(qemu!, 'info qtree'))];
    assert.deepEqual([...a.keys()].sort(), [...b.keys()].filter((k) => !qemuAlone.test(k)).sort());
    for (const [name, properties] of a)
      for (const [property, value] of properties) {
        const theirs = b.get(name)!.get(property);
        if (theirs !== undefined && !differing.has(property)) assert.equal(value, theirs, `${name}: ${property}`);
      }
    assert.ok([...a.values()].some((p) => p.size > 3));
  });

for (const board of ['pc', 'q35', 'microvm'])
  test(`${board} has the drives, ports and cards of QEMU where nothing is said of them`, {
    skip: noQemu,
    timeout: 90_000,
  }, async (t) => {
    const line = ['-M', board, '-accel', 'tcg', '-m', '128', '-display', 'none', '-S'];
    /** QEMU opens a drive for no device on microvm. */
    const used = (b: { device: string }): boolean => !/^none/.test(b.device);
    const told = async (program: string): Promise<unknown> => {
      const e = await emulator(t, program, line);
      const blocks = (await e.qmp.execute('query-block')) as {
        device: string;
        type: string;
        removable: boolean;
        locked: boolean;
      }[];
      const chardevs = (await e.qmp.execute('query-chardev')) as { label: string }[];
      const places = [...devices(await ask(e, 'info qtree')).keys()].filter((k) => !qemuAlone.test(k));
      return {
        blocks: blocks.map(({ device, type, removable, locked }) => ({ device, type, removable, locked })).filter(used),
        chardevs: chardevs
          .map((c) => c.label)
          .filter((label) => board !== 'microvm' || !/^parallel/.test(label))
          .sort(),
        places: places.sort(),
      };
    };
    assert.deepEqual(await told(OURS), await told(QEMU));
  });

/** Regions of an address space: depth, range, priority, kind and name. */
function regions(text: string, space: string): string[] {
  const block = text.split('\n\n').find((b) => b.split('\n').some((l) => l.trim() === `address-space: ${space}`));
  assert.ok(block, `no address space ${space} in\n${text}`);
  return block.split('\n').filter((l) => /^ +[\da-f]{16}-/.test(l));
}

/** QEMU's regions that ours have no part of, or another extent: see each. */
const elsewhere = [
  // Devices that are not there.
  /: (kvmvapic|ioportF0|lpc-rcrb-mmio|pcie-root-port-msix|sm-tco|acpi-smi|pc\.rom|alias kvmvapic-rom .*)$/,
  // Parts of what is one region here, and what is one region there.
  /: (rtc-index|elcr|dma-page|piix3-reset-control|lpc-reset-control|ich9-\S+)$/,
  /: (acpi-(evt|cnt|tmr|gpe0)|ich9-pm|acpi-pm|piix4-pm|pm-smbus)$/,
  // Behind a register that is not there; the speaker's port, which QEMU's microvm has not; a page here, whose place the guest chooses; and the slots of QEMU's hot-plug registers.
  /: (ahci|pcspk|apic-msi|acpi-pci-hotplug|acpi-cpu-hotplug|acpi-mem-hotplug)$/,
  // Containers of PCI Express' window and of BARs.
  /: (pcie-mmcfg\S*|nvme\S*|msix-\S+|piix-bmdma-container|piix-bmdma|bmdma|bochs dispi interface|vga ioports remapped|edid|qemu extended regs|vga\.mmio|vbe|ide)$/,
  // Windows of bridges that are closed, and firmware, which is another file on microvm.
  / 0{16}-0{16} .*alias pci_bridge_/,
  /: (alias isa-bios .*|pc\.bios)$/,
  // Windows of SMRAM that are closed.
  /alias smram/,
];
const compared = (rows: string[]): string[] => rows.filter((r) => !elsewhere.some((e) => e.test(r)));

for (const board of boards)
  test(`info mtree of ${board} has QEMU's regions, also once firmware has placed them`, {
    skip: noQemu,
    timeout: 180_000,
  }, async (t) => {
    const [ours, qemu] = await Promise.all([OURS, QEMU].map((p) => emulator(t, p, args(board, ...cards[board]!))));
    const both = async (): Promise<[string, string]> => [await ask(ours!, 'info mtree'), await ask(qemu!, 'info mtree')];
    const same = async (): Promise<void> => {
      const [a, b] = await both();
      for (const space of ['memory', 'cpu-memory-1', 'I/O', 'cpu-smm-0'])
        assert.deepEqual(compared(regions(a, space)), compared(regions(b, space)), space);
    };
    await same();
    if (board === 'microvm') return;
    const placed = (text: string): boolean => (cards[board]!.length > 0 ? /vga\.vram/.test(text) : true);
    for (const e of [ours!, qemu!]) {
      await e.qmp.execute('cont');
      const limit = Date.now() + 60_000;
      while (!placed(await ask(e, 'info mtree')) && Date.now() < limit) await new Promise((r) => setTimeout(r, 200));
      await new Promise((r) => setTimeout(r, 3000));
      await e.qmp.execute('stop');
    }
    await same();
  });

test('sata=off and smbus=off take from q35 what they take from QEMU', { skip: noQemu, timeout: 90_000 }, async (t) => {
  const line = ['-M', 'q35,sata=off,smbus=off', '-accel', 'tcg', '-m', '128', '-display', 'none', '-S'];
  const told = async (program: string): Promise<unknown> => {
    const e = await emulator(t, program, line);
    const blocks = (await e.qmp.execute('query-block')) as { device: string }[];
    const places = [...devices(await ask(e, 'info qtree')).keys()].filter((k) => !qemuAlone.test(k));
    return { places: places.sort(), blocks: blocks.map((b) => b.device) };
  };
  const [ours, theirs] = [await told(OURS), await told(QEMU)];
  assert.deepEqual(ours, theirs);
  assert.doesNotMatch(JSON.stringify(ours), /ahci|SMB/);
});

test('info mtree -f shows each address of a space once, what covers it first', { timeout: 60_000 }, async (t) => {
  const e = await emulator(t, OURS, args('pc'));
  const text = await ask(e, 'info mtree -f');
  const views = text.split(/FlatView #\d+\n/).slice(1);
  const memory = views.find((v) => v.includes(' AS "memory"'))!;
  const rows = [...memory.matchAll(/^ {2}([\da-f]{16})-([\da-f]{16}) \(prio (-?\d+), (\S+)\): (\S+)/gm)];
  for (const [i, row] of rows.entries())
    if (i > 0) assert.ok(BigInt(`0x${row[1]}`) > BigInt(`0x${rows[i - 1]![2]}`), `${row[0]} overlaps what is before it`);
  const at = (address: bigint): string | undefined =>
    rows.filter((r) => BigInt(`0x${r[1]}`) <= address && address <= BigInt(`0x${r[2]}`)).map((r) => `${r[4]} ${r[5]}`)[0];
  assert.equal(at(0n), 'ram pc.ram');
  assert.equal(at(0xf_fff0n), 'rom pc.bios');
  assert.equal(at(0xffff_fff0n), 'rom pc.bios');
  assert.equal(at(0xfec0_0000n), 'i/o ioapic');
  assert.equal(at(0x800_0000n), undefined);
  const io = views.find((v) => v.includes(' AS "I/O"'))!;
  assert.match(
    io,
    /0000000000000020-0000000000000021 \(prio 0, i\/o\): pic\n {2}0000000000000022-000000000000003f \(prio 0, i\/o\): io @0000000000000022/,
  );
});
