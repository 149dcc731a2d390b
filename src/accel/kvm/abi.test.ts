import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  COALESCED_WRITES,
  coalescedRingLayout,
  coalescedWriteLayout,
  eventsLayout,
  ioctls,
  RUN_UNION,
  regsLayout,
  runIoLayout,
  runLayout,
  runMmioLayout,
  sregsLayout,
  xcrsLayout,
} from './abi.ts';

// Numbers as a C compiler gives them from <linux/kvm.h>.
const numbers: Record<string, number> = {
  createVm: 0xae01, createVcpu: 0xae41, run: 0xae80, getRegs: 0x8090ae81, setRegs: 0x4090ae82, getSregs: 0x8138ae83,
  setSregs: 0x4138ae84, setMemoryRegion: 0x4020ae46, setCpuid2: 0x4008ae90, createIrqchip: 0xae60, reinjectControl: 0xae71, createPit2: 0x4040ae77,
  irqLine: 0x4008ae61, interrupt: 0x4004ae86, setSignalMask: 0x4004ae8b, getSupportedCpuid: 0xc008ae05, getXsave: 0x9000aea4,
  setXsave: 0x5000aea5, getMsrs: 0xc008ae88, setMsrs: 0x4008ae89, getVcpuEvents: 0x8040ae9f, setVcpuEvents: 0x4040aea0,
  signalMsi: 0x4020aea5, enableCap: 0x4068aea3, ioeventfd: 0x4040ae79, irqfd: 0x4020ae76, getDirtyLog: 0x4010ae42,
  getDebugregs: 0x8080aea1, setDebugregs: 0x4080aea2, getXcrs: 0x8188aea6, setXcrs: 0x4188aea7, getLapic: 0x8400ae8e,
  getIrqchip: 0xc208ae62, setIrqchip: 0x8208ae63, getPit2: 0x8070ae9f, setPit2: 0x4070aea0,
  setClock: 0x4030ae7b, getClock: 0x8030ae7c, getMpState: 0x8004ae98, setGuestDebug: 0x4048ae9b, translate: 0xc018ae85, registerCoalesced: 0x4010ae67,
  setDeviceAttr: 0x4018aee1, getDeviceAttr: 0x4018aee2,
}; // biome-ignore format: a table

test('ioctls have the numbers of the kernel headers', () => {
  for (const [name, number] of Object.entries(numbers)) {
    assert.equal(ioctls[name as keyof typeof ioctls].request.toString(16), number.toString(16), name);
  }
});

test('structures have the sizes and offsets of the kernel headers', () => {
  assert.deepEqual([regsLayout.size, regsLayout.offsets.rip], [144, 128]);
  const { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, efer, apicBase } = sregsLayout.offsets;
  assert.deepEqual([sregsLayout.size, cs, ds, es, fs, gs, ss], [312, 0, 0x18, 0x30, 0x48, 0x60, 0x78]);
  assert.deepEqual([tr, ldt, gdt, idt, cr0, efer, apicBase], [0x90, 0xa8, 0xc0, 0xd0, 0xe0, 0x108, 0x110]);
  assert.deepEqual([eventsLayout.size, eventsLayout.offsets.nmiMasked, eventsLayout.offsets.flags], [64, 14, 20]);
  assert.deepEqual(
    [runLayout.offsets.immediateExit, runLayout.offsets.exitReason, runLayout.offsets.readyForInjection],
    [1, 8, 12],
  );
  assert.deepEqual([runLayout.offsets.cr8, runLayout.size], [16, RUN_UNION]);
  assert.deepEqual([runIoLayout.offsets.port, runIoLayout.offsets.dataOffset], [2, 8]);
  assert.deepEqual([runMmioLayout.offsets.length, runMmioLayout.offsets.isWrite], [16, 20]);
  assert.equal(xcrsLayout.size, 392);
  assert.deepEqual([coalescedRingLayout.size, coalescedWriteLayout.size, COALESCED_WRITES], [8, 24, 170]);
});
