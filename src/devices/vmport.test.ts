import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Doorbell } from '../bus/doorbell.ts';
import type { PortRegisters } from '../bus/port-registers.ts';
import { testBoard } from './testing.ts';
import { VmMouse } from './vmmouse.ts';
import { VMPORT, VMPORT_MAGIC, Vmport } from './vmport.ts';

const MIB = 1 << 20;

function rig(memory = 300 * MIB) {
  const b = testBoard();
  let rings = 0;
  const bell = { ring: () => rings++ } as unknown as Doorbell;
  const mouse = new VmMouse({ arena: b.arena, bell });
  mouse.reset();
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => 0x11 * i);
  const vmport = new Vmport({ ports: b.ports, memory, uuid, mouse });
  /** All registers after a call with these. */
  const call = (o: Partial<PortRegisters>, x2apic = false): number[] => {
    const r = { eax: VMPORT_MAGIC, ebx: 0xb0, ecx: 0, edx: VMPORT, esi: 0x51, edi: 0xd1, ...o };
    vmport.call(r, x2apic);
    return [r.eax, r.ebx, r.ecx, r.edx, r.esi, r.edi].map((n) => n >>> 0);
  };
  return { ...b, mouse, call, rings: () => rings };
}
const NONE = 0xffff_ffff;

test("commands of the backdoor have QEMU's answers, whatever else is asked has none", () => {
  const { call, ports } = rig();
  assert.deepEqual(call({ ecx: 10 }), [6, VMPORT_MAGIC, 2, VMPORT, 0x51, 0xd1]);
  assert.deepEqual(call({ ecx: 19 }), [0x33221100, 0x77665544, 0xbbaa9988, 0xffeeddcc, 0x51, 0xd1]);
  assert.deepEqual(call({ ecx: 20 }), [300 * MIB, 0x1177, 20, VMPORT, 0x51, 0xd1]);
  assert.deepEqual(call({ ecx: 45 }), [VMPORT_MAGIC, NONE, 45, VMPORT, 0x51, 0xd1]);
  assert.equal(call({ ecx: 68 })[0], 0);
  assert.equal(call({ ecx: 68 }, true)[0], 8);
  assert.equal(call({ ecx: 0x20a })[0], 6, 'the low byte is the command');
  assert.equal(rig(6 * 1024 * MIB).call({ ecx: 20 })[0], 2 * 1024 * MIB, 'as many bits as the register has');
  for (let ecx = 0; ecx < 256; ecx++)
    if (![10, 19, 20, 39, 40, 41, 45, 68].includes(ecx)) assert.deepEqual(call({ ecx }), [NONE, 0xb0, ecx, VMPORT, 0x51, 0xd1]);
  assert.equal(call({ eax: 1, ecx: 10 })[0], NONE, 'without the magic number');
  assert.equal(ports.read(VMPORT, 4), NONE, 'without registers');
});

test('the mouse is taken over by the guest, and its packets are read in pieces', () => {
  const { call, mouse, rings } = rig();
  const status = (): number => call({ ecx: 40 })[0]!;
  const order = (ebx: number): void => assert.equal(call({ ecx: 41, ebx })[0], VMPORT_MAGIC);
  const read = (n: number): number[] => call({ ecx: 39, ebx: n });
  assert.equal(status(), 0xffff_0000);
  order(0x4541_4552);
  assert.equal(status(), 1);
  assert.deepEqual(read(1), [0x3442_554a, 1, 39, VMPORT, 0x51, 0xd1]);
  assert.equal(mouse.s.active, 0);
  order(0x5342_4152);
  assert.deepEqual([mouse.s.active, mouse.s.absolute, rings()], [1, 1, 1]);
  mouse.move(0x1234, 0x7fff, -1, 5);
  mouse.move(0, 1, 0, 2);
  assert.equal(status(), 8);
  assert.deepEqual(read(6), [0x28, 0x2468, 0xfffe, NONE, 0x10, 0]);
  assert.deepEqual(read(2), [2, 0, 39, VMPORT, 0x51, 0xd1]);
  order(0x4c45_5252);
  assert.deepEqual([mouse.s.active, mouse.s.absolute, rings()], [1, 0, 2]);
  mouse.move(-3, 4, 0, 1);
  assert.deepEqual(read(4).slice(0, 4), [0x1_0020, 0xffff_fffd, 4, 0]);
  order(0xf5);
  assert.deepEqual([mouse.s.active, status(), rings()], [0, 0xffff_0000, 3]);
});

test('no size, order or flood of events goes past the queue', () => {
  const { call, mouse } = rig();
  for (const ebx of [0, 1, 7, 0x8000_0000, NONE]) {
    call({ ecx: 41, ebx: 0x5342_4152 });
    mouse.s.status = 0;
    assert.deepEqual(call({ ecx: 39, ebx }), [VMPORT_MAGIC, ebx, 39, VMPORT, 0x51, 0xd1]);
    assert.equal(call({ ecx: 40 })[0], 0xffff_0000);
  }
  let taken = 0;
  while (taken < 5000 && mouse.move(1, 1, 0, 0)) taken++;
  assert.equal(taken, 256);
  for (let n = 0; n < 4; n++) call({ ecx: 39, ebx: 1 });
  for (let n = 0; n < 2000; n++) call({ ecx: 41, ebx: 0x4541_4552 });
  assert.equal(call({ ecx: 40 })[0], 1024);
  for (let n = 0; n < 1020; n += 4) assert.equal(call({ ecx: 39, ebx: 4 })[1], 2);
  assert.deepEqual(call({ ecx: 39, ebx: 4 }), [0x3442_554a, 0x3442_554a, 0x3442_554a, 0x3442_554a, 0x51, 0xd1]);
  assert.equal(call({ ecx: 40 })[0], 0);
  assert.equal(call({ ecx: 41, ebx: 0x1234 })[0], VMPORT_MAGIC);
  assert.equal(call({ ecx: 0x1_0029, ebx: 0xf5 })[0], VMPORT_MAGIC);
});
