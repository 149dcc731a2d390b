// What a reset leaves in the guest's RAM, compared with QEMU's: all that the guest has put there, but for what the machine starts with, which is
// loaded again. Each guest here resets its machine by the reset control register, the keyboard controller and a triple fault.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readFirmware } from '../../src/host/node/fetch-firmware.ts';
import { withoutKvm } from '../../src/host/node/kvm-testing.ts';
import { asm } from '../hostile/asm.ts';
import { multiboot, program } from './program.ts';

const folder = await mkdtemp(join(tmpdir(), 'nonroot-reset-'));
after(() => rm(folder, { recursive: true }));
const noQemu = spawnSync('qemu-system-x86_64', ['--version']).status === 0 ? false : 'qemu-system-x86_64 is not there';
const noFirmware = await readFirmware('bios-256k.bin').then(
  () => false as const,
  (error) => `SeaBIOS is not to be had: ${error}`,
);

/**
 * Says at each start whether there was a mark at 32 MiB (k) or not (c, and it leaves one), then two bytes that it changes afterwards, one of
 * its own code's page and the first one of its module, then the number of resets, which is counted behind the mark; ends after the third.
 */
const kernel = multiboot([
  ...asm(
    '8b4b18 8b09 be00000002 66baf803', // mov ecx,[ebx+24]; mov ecx,[ecx]; mov esi,0x2000000; mov dx,0x3f8
    'b063 813e4d41524b 7507', // mov al,'c'; cmp dword [esi],'MARK'; jne N
    'b06b ff4604 eb0d', // mov al,'k'; inc dword [esi+4]; jmp S
    'c7064d41524b c7460400000000', // N: mov dword [esi],'MARK'; mov dword [esi+4],0
    'ee a08d001000 fe058d001000 ee', // S: out dx,al; mov al,[own]; inc byte [own]; out dx,al
    '8a01 fe01 ee', // mov al,[ecx]; inc byte [ecx]; out dx,al
    '8a4604 0430 ee 2c30', // mov al,[esi+4]; add al,'0'; out dx,al; sub al,'0'
    '7410 fec8 7414 fec8 7415', // jz A; dec al; jz B; dec al; jz C
    'b010 66ba0105 ee f4', // mov al,16; mov dx,0x501; out dx,al; hlt
    '66baf90c b006 ee f4', // A: mov dx,0xcf9; mov al,6; out dx,al; hlt
    'b0fe e664 f4', // B: mov al,0xfe; out 0x64,al; hlt
    '0f011d8e001000 cc', // C: lidt [none]; int3
    '61', // own: 'a'
    '00000000 0000', // none: a table without entries
  ),
]);
const KERNEL_SAYS = 'cam0kam1kam2kam3';

/** The same from the first sector of a disk: through a segment of 4 GiB (unreal mode), without a module. */
const sector = new Uint8Array(1 << 20);
sector.set(
  asm(
    '31c0 8ed8 8ed0 bc007c fa 0f01168f7c', // xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7c00; cli; lgdt [G]
    '0f20c0 0c01 0f22c0 bb0800 8ee3', // mov eax,cr0; or al,1; mov cr0,eax; mov bx,8; mov fs,bx
    '24fe 0f22c0 31c0 8ee0', // and al,~1; mov cr0,eax; xor ax,ax; mov fs,ax
    '66be00000002 baf803', // mov esi,0x2000000; mov dx,0x3f8
    'b063 646766813e4d41524b 750a', // mov al,'c'; cmp dword fs:[esi],'MARK'; jne N
    'b06b 646766ff4604 eb13', // mov al,'k'; inc dword fs:[esi+4]; jmp S
    '646766c7064d41524b 646766c7460400000000', // N: mov dword fs:[esi],'MARK'; mov dword fs:[esi+4],0
    'ee a08e7c fe068e7c ee', // S: out dx,al; mov al,[own]; inc byte [own]; out dx,al
    '64678a4604 0430 ee 2c30', // mov al,fs:[esi+4]; add al,'0'; out dx,al; sub al,'0'
    '740f fec8 7412 fec8 7413', // jz A; dec al; jz B; dec al; jz C
    'b010 ba0105 ee f4', // mov al,16; mov dx,0x501; out dx,al; hlt
    'baf90c b006 ee f4', // A: mov dx,0xcf9; mov al,6; out dx,al; hlt
    'b0fe e664 f4', // B: mov al,0xfe; out 0x64,al; hlt
    '0f011e957c cc', // C: lidt [none]; int3
    '61', // own: 'a'
    '0f00 9d7c0000', // G: two segments, from here on
    '0000000000000000 0000000000000000 ffff0000 0092cf00', // none, which is also where they are: nothing, and 4 GiB of data
  ),
);
sector.set([0x55, 0xaa], 510);
const SECTOR_SAYS = 'ca0ka1ka2ka3';

const path = (name: string): string => join(folder, name);
await writeFile(path('kernel'), kernel);
await writeFile(path('module'), 'm');
await writeFile(path('disk'), sector);
const ends = ['-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-device', 'isa-debug-exit'];
const withKernel = ['-kernel', path('kernel'), '-initrd', path('module')];
const withDisk = ['-drive', `file=${path('disk')},format=raw,if=ide`, '-snapshot'];

async function says(emulator: string, args: readonly string[], text: string): Promise<void> {
  const r = await program(emulator, [...args, ...ends], { seconds: 280 });
  assert.equal(r.stdout.toString(), text, r.text);
  assert.equal(r.code, 33, r.text);
}

for (const machine of ['pc', 'q35']) {
  for (const [what, args, text, skip] of [
    ['a kernel and its module are loaded again', withKernel, KERNEL_SAYS, false],
    ['firmware starts again', withDisk, SECTOR_SAYS, noFirmware],
  ] as const) {
    test(`a reset keeps what the guest has in its RAM, and ${what}: ${machine}`, { skip }, async () => {
      await says('nonroot-system-x86_64', ['-M', machine, '-m', '64', ...args], text);
    });
    test(`… as with QEMU: ${what}, ${machine}`, { skip: noQemu }, async () => {
      await says('/usr/bin/qemu-system-x86_64', ['-M', machine, '-m', '64', ...args], text);
    });
    // Once: firmware takes half a minute under a KVM that is emulated itself.
    if (machine === 'q35') continue;
    test(`… under KVM: ${what}`, { skip: withoutKvm() || skip, timeout: 300_000 }, async () => {
      await says('nonroot-system-x86_64', ['-M', machine, '-m', '64', '-accel', 'kvm', ...args], text);
    });
  }
}
