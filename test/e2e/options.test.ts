// Command lines that cannot be used: one clear line, the right exit code, and no guest.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { multiboot, program } from './program.ts';

const directory = mkdtempSync(join(tmpdir(), 'nonroot-e2e-'));
after(() => rmSync(directory, { recursive: true }));
const file = (name: string, bytes: Uint8Array): string => {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
};
const kernel = file('kernel', multiboot([0xf4]));
const text = file('text', Buffer.from('this is no kernel\n'));
const large = file('large', new Uint8Array(3 << 20));
/** A bzImage's header (Linux Documentation/arch/x86/boot.rst) that announces more than is there. */
const bytes = new Uint8Array(0x400);
bytes[0x1f1] = 4;
bytes.set([0x55, 0xaa, 0xeb, 0x6a, 0x48, 0x64, 0x72, 0x53, 0x0f, 0x02], 0x1fe);
bytes[0x1f4] = 0xff;
bytes[0x211] = 1;
const truncated = file('truncated', bytes);

interface Case {
  readonly args: readonly string[];
  readonly code: number;
  /** What the line says. */
  readonly says: RegExp;
}

const people: readonly Case[] = [
  { args: [], code: 2, says: /^Usage: nonroot COMMAND/ },
  { args: ['fly'], code: 2, says: /Cannot run command "fly": accepted are run, / },
  { args: ['run', '--fly'], code: 2, says: /Cannot use option --fly: accepted are / },
  { args: ['run', 'no-image'], code: 2, says: /Cannot find image "no-image": accepted are debian-cloud/ },
  { args: ['run', 'debian-cloud', 'more'], code: 2, says: /Cannot use "more": one word is accepted/ },
  { args: ['run', '-m', '1x'], code: 2, says: /Cannot use memory size "1x": accepted are / },
  { args: ['run', '--cpus', '0'], code: 2, says: /Cannot make "0" vCPUs: accepted are 1 to 64/ },
  { args: ['run', '--cpu', 'z80'], code: 2, says: /Cannot use CPU model z80: accepted are / },
  { args: ['run', '--accel', 'hvf'], code: 2, says: /Cannot use --accel hvf: accepted are auto, dbt and kvm/ },
  { args: ['run', '--timeout', 'soon'], code: 2, says: /Cannot use --timeout soon/ },
  { args: ['run', '--exec'], code: 2, says: /Cannot use --exec: its value COMMAND is missing/ },
  { args: ['pull', 'no-image'], code: 2, says: /Cannot find image "no-image"/ },
  { args: ['run', '--kernel', join(directory, 'none')], code: 1, says: /Cannot read .*none: there is no such file/ },
  { args: ['run', '--kernel', text], code: 1, says: /Cannot load kernel: .* accepted are Linux bzImage/ },
  { args: ['run', '--kernel', kernel, '-m', '4K'], code: 1, says: /Cannot give the guest 4 KiB of memory/ },
];

const emulator: readonly Case[] = [
  { args: ['-device', 'vfio-pci'], code: 1, says: /^nonroot-system-x86_64: -device vfio-pci: not supported$/m },
  { args: ['-netdev', 'l2tpv3,id=n'], code: 1, says: /-netdev l2tpv3: not supported/ },
  { args: ['no-disk.qcow2'], code: 1, says: /no-disk\.qcow2/ },
  { args: ['-M', 'isapc'], code: 1, says: /-machine isapc: not supported; accepted: q35, pc, microvm, none/ },
  { args: ['-accel', 'hvf', '-kernel', kernel], code: 1, says: /-accel hvf: not supported; accepted: dbt, tcg, kvm/ },
  { args: ['-cpu', 'max,+warp', '-kernel', kernel], code: 1, says: /-cpu max,\+warp: Cannot change CPU feature "\+warp"/ },
  { args: ['-kernel'], code: 1, says: /-kernel: its value FILE is missing/ },
  { args: ['-kernel', text], code: 1, says: /Cannot load kernel: / },
  { args: ['-kernel', truncated], code: 1, says: /Cannot read bzImage: the file ends after/ },
  { args: ['-kernel', kernel, '-initrd', large, '-m', '2'], code: 1, says: /more memory|has 0 bytes|Cannot load/ },
  { args: ['-kernel', kernel, '-m', '100G'], code: 1, says: /Cannot give the guest 102400 MiB of memory/ },
  { args: ['-kernel', kernel, '-device', 'isa-debug-exit,iobase=0x3f8'], code: 1, says: /Cannot map isa-debug-exit at 0x3f8/ },
  { args: ['-kernel', kernel, '-serial', 'stdio', '-serial', 'stdio'], code: 1, says: /in use already/ },
  {
    args: ['-kernel', kernel, '-serial', 'file:/no/such/place'],
    code: 1,
    says: /Cannot open character device serial0: .*\/no\/such\/place/,
  },
];

for (const [name, cases] of [
  ['nonroot', people],
  ['nonroot-system-x86_64', emulator],
] as const) {
  test(`${name} says in one line what is wrong with a command line`, async (t) => {
    for (const { args, code, says } of cases) {
      await t.test(`${args.join(' ').replaceAll(directory, '…') || '(nothing)'} ends with ${code}`, async () => {
        const r = await program(name, args);
        assert.equal(r.code, code, r.text);
        assert.match(r.stderr, says);
        assert.equal(r.stdout.length, 0, r.text);
        if (args.length > 0) assert.equal(r.stderr.trimEnd().split('\n').length, 1, r.text);
      });
    }
  });
}

test('help and version go to standard output with exit code 0', async () => {
  const asked = [
    ['nonroot', ['--help'], /run .*images .*pull /s],
    ['nonroot', ['run', '--help'], /--exec COMMAND/],
    ['nonroot', ['--version'], /^nonroot \d+\.\d+\.\d+\n$/],
    ['nonroot-system-x86_64', ['-help'], /-device DRIVER/],
    ['nonroot-system-x86_64', ['-version'], /^QEMU emulator version 7\.2\.\d+ \(Nonroot \d+\.\d+\.\d+\)\n$/],
    ['nonroot-system-x86_64', ['-device', 'help'], /isa-debug-exit/],
    ['nonroot-system-x86_64', ['--machine', 'help'], /q35/],
    ['nonroot-system-x86_64', ['-cpu', 'help'], /qemu64[\s\S]*sse4\.2/],
  ] as const;
  for (const [name, args, says] of asked) {
    const r = await program(name, args);
    assert.equal(r.code, 0, r.text);
    assert.match(r.stdout.toString(), says);
    assert.equal(r.stderr, '');
  }
});
