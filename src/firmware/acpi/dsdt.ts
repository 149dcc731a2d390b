// The DSDT's body: processors, the PCI root bridge and the ISA devices of a PC.
// ACPI Specification 6.4, chapters 5.3 (namespace), 6 (device configuration), 7.4 (_Sx), 8.4 (processors);
// PCI Firmware Specification 3.3, sections 4.1.2 (MCFG and motherboard resources) and 4.5.1 (_OSC).

import * as a from './aml.ts';
import { type AcpiConfig, HPET_BASE, type PciConfig } from './config.ts';
import { busWindow, dma, interrupt, io, ioWindow, irq, memory32, memoryWindow, template } from './resources.ts';
import { MADT_ENABLED, madtCpu } from './tables.ts';

const present = a.name('_STA', a.int(0x0f));

const cpuName = (uid: number): string => `C${uid.toString(16).toUpperCase().padStart(3, '0')}`;

/**
 * CPUs that come and go, with the methods over the ports that tell of them: QEMU 7.2, docs/specs/acpi_cpu_hotplug.rst. `CSCN` is what the
 * event calls.
 */
const cpuContainer = (cpus: readonly number[], base: number): a.Aml => {
  const locked = (...terms: readonly a.Aml[]): a.Aml[] => [a.acquire('CPLK'), ...terms, a.release('CPLK')];
  const set = (name: string, value: a.Aml): a.Aml => a.store(value, a.path(name));
  const is = (name: string): a.Aml => a.equal(a.path(name), a.int(1));
  const one = a.int(1);
  return a.device(
    'CPUS',
    a.name('_HID', a.str('ACPI0010')),
    a.name('_CID', a.hid('PNP0A05')),
    a.ports('PRST', base, 12),
    a.bitFields('PRST', 1, [32, ['CPEN', 1], ['CINS', 1], ['CRMV', 1], ['CEJE', 1], 4, ['CCMD', 8]]),
    a.bitFields('PRST', 4, [['CSEL', 32], 32, ['CDAT', 32]]),
    a.mutex('CPLK'),
    a.method('_INI', 0, set('CSEL', a.int(0))),
    a.method('CSTA', 1, ...locked(set('CSEL', a.arg(0)), a.store(a.int(0), a.local(0)), a.ifThen(is('CPEN'), a.store(a.int(15), a.local(0)))), a.ret(a.local(0))),
    a.method('CEJ0', 1, ...locked(set('CSEL', a.arg(0)), set('CEJE', one))),
    a.method('COST', 4, ...locked(set('CSEL', a.arg(0)), set('CCMD', one), set('CDAT', a.arg(1)), set('CCMD', a.int(2)), set('CDAT', a.arg(2)))),
    a.method('CTFY', 2, ...cpus.map((_, uid) => a.ifThen(a.equal(a.arg(0), a.int(uid)), a.notify(a.path(cpuName(uid)), a.arg(1))))),
    a.method(
      'CSCN',
      0,
      ...locked(
        a.store(one, a.local(0)),
        a.whileTrue(
          a.equal(a.local(0), one),
          a.store(a.int(0), a.local(0)),
          set('CCMD', a.int(0)),
          a.ifThen(is('CINS'), a.call('CTFY', a.path('CDAT'), one), set('CINS', one), a.store(one, a.local(0))),
          a.otherwise(a.ifThen(is('CRMV'), a.call('CTFY', a.path('CDAT'), a.int(3)), set('CRMV', one), a.store(one, a.local(0)))),
        ),
      ),
    ),
    ...cpus.map((id, uid) =>
      a.device(
        cpuName(uid),
        a.name('_HID', a.str('ACPI0007')),
        a.name('_UID', a.int(uid)),
        a.method('_STA', 0, a.ret(a.call('CSTA', a.int(uid)))),
        a.name('_MAT', a.buffer(madtCpu(uid, id, MADT_ENABLED))),
        ...(uid === 0 ? [] : [a.method('_EJ0', 1, a.call('CEJ0', a.int(uid)))]),
        a.method('_OST', 3, a.call('COST', a.int(uid), a.arg(0), a.arg(1), a.arg(2))),
      ),
    ),
  ); // biome-ignore format: methods a line each
};

const moduleName = (slot: number): string => `M${slot.toString(16).toUpperCase().padStart(3, '0')}`;

/** Where the fields of `_CRS`'s one descriptor lie (6.4.3.5.1): first and last address, bytes. */
const qword = { first: 14, last: 22, length: 38 } as const;

/**
 * Modules of memory that come and go, with the methods over the ports that tell of them: QEMU 7.2, docs/specs/acpi_mem_hotplug.rst. `MSCN` is
 * what the event calls.
 */
const memoryContainer = ({ port, slots, window }: NonNullable<AcpiConfig['memoryHotplug']>): a.Aml => {
  const locked = (...terms: readonly a.Aml[]): a.Aml[] => [a.acquire('MLCK'), ...terms, a.release('MLCK')];
  const set = (name: string, value: a.Aml): a.Aml => a.store(value, a.path(name));
  const is = (name: string): a.Aml => a.equal(a.path(name), a.int(1));
  const one = a.int(1);
  const select = set('MSEL', a.arg(0));
  const wide = (low: string, high: string): a.Aml => a.plus(a.path(low), a.shiftLeft(a.path(high), a.int(32)));
  const all = Array.from({ length: slots }, (_, n) => n);
  return a.device(
    'MHPC',
    a.name('_HID', a.hid('PNP0A06')),
    a.name('_UID', a.str('Memory hotplug resources')),
    present,
    a.name('_CRS', template(io(port, 24))),
    a.ports('MPRT', port, 24),
    a.dwordFields('MPRT', 'MRBL', 'MRBH', 'MRLL', 'MRLH', 'MPX'),
    a.bitFields('MPRT', 1, [160, ['MES', 1], ['MINS', 1], ['MRMV', 1], ['MEJ', 1]]),
    a.dwordFields('MPRT', 'MSEL', 'MOEV', 'MOSC'),
    a.mutex('MLCK'),
    a.method('MSTA', 1, ...locked(select, a.store(a.int(0), a.local(0)), a.ifThen(is('MES'), a.store(a.int(15), a.local(0)))), a.ret(a.local(0))),
    a.serializedMethod(
      'MCRS',
      1,
      ...locked(select, a.store(wide('MRBL', 'MRBH'), a.local(1)), a.store(wide('MRLL', 'MRLH'), a.local(2))),
      a.store(template(memoryWindow(window.base, window.size, true)), a.local(0)),
      a.createQwordField(a.local(0), qword.first, 'MMIN'),
      a.createQwordField(a.local(0), qword.last, 'MMAX'),
      a.createQwordField(a.local(0), qword.length, 'MLEN'),
      set('MMIN', a.local(1)),
      a.subtract(a.plus(a.local(1), a.local(2)), one, a.path('MMAX')),
      set('MLEN', a.local(2)),
      a.ret(a.local(0)),
    ),
    a.method('MPXM', 1, ...locked(select, a.store(a.path('MPX'), a.local(0))), a.ret(a.local(0))),
    a.method('MOST', 4, ...locked(select, set('MOEV', a.arg(1)), set('MOSC', a.arg(2)))),
    a.method('MEJ0', 1, ...locked(select, set('MEJ', one))),
    a.method('MTFY', 2, ...all.map((n) => a.ifThen(a.equal(a.arg(0), a.int(n)), a.notify(a.path(moduleName(n)), a.arg(1))))),
    a.method(
      'MSCN',
      0,
      ...locked(
        a.store(a.int(0), a.local(0)),
        a.whileTrue(
          a.less(a.local(0), a.int(slots)),
          set('MSEL', a.local(0)),
          a.ifThen(is('MINS'), a.call('MTFY', a.local(0), one), set('MINS', one)),
          a.otherwise(a.ifThen(is('MRMV'), a.call('MTFY', a.local(0), a.int(3)), set('MRMV', one))),
          a.add(a.local(0), one, a.local(0)),
        ),
      ),
    ),
    ...all.map((n) =>
      a.device(
        moduleName(n),
        a.name('_HID', a.hid('PNP0C80')),
        a.name('_UID', a.int(n)),
        a.method('_STA', 0, a.ret(a.call('MSTA', a.int(n)))),
        a.method('_CRS', 0, a.ret(a.call('MCRS', a.int(n)))),
        a.method('_PXM', 0, a.ret(a.call('MPXM', a.int(n)))),
        a.method('_OST', 3, a.call('MOST', a.int(n), a.arg(0), a.arg(1), a.arg(2))),
        a.method('_EJ0', 1, a.call('MEJ0', a.int(n))),
      ),
    ),
  ); // biome-ignore format: methods a line each
};

const cpuDevices = (cpus: readonly number[]): a.Aml[] =>
  cpus.map((_, i) => a.device(cpuName(i), a.name('_HID', a.str('ACPI0007')), a.name('_UID', a.int(i)), present));

/** _PRT (6.2.13): for each slot and pin the GSI, without an interrupt link device. */
const routing = (intx: PciConfig['intx']): a.Aml => {
  const entries: a.Aml[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let pin = 0; pin < 4; pin++) {
      entries.push(a.pkg(a.int(slot * 0x10000 + 0xffff), a.int(pin), a.int(0), a.int(intx(slot, pin))));
    }
  }
  return a.name('_PRT', a.pkg(...entries));
};

/** Grants native hot-plug, PME, AER and capability-structure control, and masks what it does not know. */
const osc = a.method(
  '_OSC',
  4,
  a.createDwordField(a.arg(3), 0, 'CDW1'),
  a.ifThen(
    a.equal(a.arg(0), a.uuid('33DB4D5B-1FF7-401C-9657-7441C03DD766')),
    a.createDwordField(a.arg(3), 8, 'CDW3'),
    a.and(a.path('CDW3'), a.int(0x1d), a.path('CDW3')),
    a.ifThen(a.not(a.equal(a.arg(1), a.int(1))), a.or(a.path('CDW1'), a.int(8), a.path('CDW1'))),
  ),
  a.otherwise(a.or(a.path('CDW1'), a.int(4), a.path('CDW1'))),
  a.ret(a.arg(3)),
);

const rootBridge = (config: AcpiConfig, pci: PciConfig): a.Aml => {
  const express = pci.mmconfig !== undefined;
  const windows = [
    busWindow(0, 255),
    io(0xcf8, 8),
    ioWindow(0, 0xcf7),
    ioWindow(0xd00, 0xffff),
    memoryWindow(0xa0000, 0x20000, true),
    ...pci.memory.filter((w) => w.size > 0).map((w) => memoryWindow(w.base, w.size)),
  ];
  return a.device(
    'PCI0',
    a.name('_HID', a.hid(express ? 'PNP0A08' : 'PNP0A03')),
    ...(express ? [a.name('_CID', a.hid('PNP0A03')), osc] : []),
    a.name('_UID', a.int(0)),
    a.name('_SEG', a.int(0)),
    a.name('_BBN', a.int(0)),
    a.name('_CRS', template(...windows)),
    routing(pci.intx),
    a.device('ISA', a.name('_ADR', a.int(pci.isaBridge)), ...isaDevices(config)),
    ...(pci.hotplug ? hotplugSlots(pci.hotplug) : []),
  );
};

const slotName = (slot: number): string => `S${(slot * 8).toString(16).toUpperCase().padStart(2, '0')}`;

/** Devices for the slots with their ejection, and the notifications of what the ports tell (QEMU "ACPI PCI hotplug interface"). */
const hotplugSlots = ({ base, slots }: NonNullable<PciConfig['hotplug']>): a.Aml[] => [
  a.ports('PCST', base, 8),
  a.dwordFields('PCST', 'PCIU', 'PCID'),
  a.ports('SEJ', base + 8, 4),
  a.dwordFields('SEJ', 'B0EJ'),
  ...slots.map((slot) =>
    a.device(
      slotName(slot),
      a.name('_ADR', a.int(slot * 0x10000)),
      a.name('_SUN', a.int(slot)),
      a.method('_EJ0', 1, a.store(a.int(2 ** slot), a.path('B0EJ'))),
    ),
  ),
  a.method(
    'DVNT',
    2,
    ...slots.map((slot) => a.ifThen(a.masked(a.arg(0), a.int(2 ** slot)), a.notify(a.path(slotName(slot)), a.arg(1)))),
  ),
  a.method('PCNT', 0, a.call('DVNT', a.path('PCIU'), a.int(1)), a.call('DVNT', a.path('PCID'), a.int(3))),
];

/** The methods of general-purpose events: 1 tells of PCI devices, 2 of CPUs, 3 of memory. */
const events = (config: AcpiConfig): a.Aml[] => {
  const methods = [
    ...(config.pci?.hotplug ? [a.method('_E01', 0, a.call('\\_SB.PCI0.PCNT'))] : []),
    ...(config.cpuHotplug === undefined ? [] : [a.method('_E02', 0, a.call('\\_SB.CPUS.CSCN'))]),
    ...(config.memoryHotplug ? [a.method('_E03', 0, a.call('\\_SB.MHPC.MSCN'))] : []),
  ];
  return methods.length > 0 ? [a.scope('\\_GPE', ...methods)] : [];
};

const simple = (where: string, id: string, ...resources: Uint8Array[]): a.Aml =>
  a.device(where, a.name('_HID', a.hid(id)), present, a.name('_CRS', template(...resources)));

const isaDevices = (config: AcpiConfig): a.Aml[] => [
  ...(config.serial ?? []).map(({ port, irq: line }, i) =>
    a.device(
      `COM${i + 1}`,
      a.name('_HID', a.hid('PNP0501')),
      a.name('_UID', a.int(i + 1)),
      present,
      a.name('_CRS', template(io(port, 8), irq(line))),
    ),
  ),
  ...floppyAndPrinters(config),
  ...(config.rtc ? [simple('RTC', 'PNP0B00', io(0x70, 8), irq(8))] : []),
  ...(config.ps2 ? [simple('KBD', 'PNP0303', io(0x60, 1), io(0x64, 1), irq(1)), simple('MOU', 'PNP0F13', irq(12))] : []),
];

const floppyAndPrinters = (config: AcpiConfig): a.Aml[] => [
  ...(config.floppy ? [simple('FDC0', 'PNP0700', io(0x3f2, 4), io(0x3f7, 1), irq(6), dma(2))] : []),
  ...(config.parallel ?? []).map(({ port, irq: line }, i) =>
    a.device(
      `LPT${i + 1}`,
      a.name('_HID', a.hid('PNP0400')),
      a.name('_UID', a.int(i + 1)),
      present,
      a.name('_CRS', template(io(port, 8), irq(line))),
    ),
  ),
];

const systemDevices = (config: AcpiConfig): a.Aml[] => [
  ...(config.pci?.mmconfig
    ? [
        a.device(
          'MCFG',
          a.name('_HID', a.hid('PNP0C02')),
          a.name('_CRS', template(memory32(config.pci.mmconfig.base, 0x1000_0000))),
        ),
      ]
    : []),
  ...(config.hpet ? [simple('HPET', 'PNP0103', memory32(HPET_BASE, 0x400))] : []),
  ...(config.fwCfg ? [simple('FWCF', 'QEMU0002', io(0x510, 0x0c))] : []),
  ...(config.pvpanic === undefined ? [] : [simple('PEVT', 'QEMU0001', io(config.pvpanic, 1))]),
  ...(config.virtioMmio ?? []).map(({ base, size, gsi }, i) =>
    a.device(
      `VR${i.toString(16).toUpperCase().padStart(2, '0')}`,
      a.name('_HID', a.str('LNRO0005')),
      a.name('_UID', a.int(i)),
      a.name('_CCA', a.int(1)),
      a.name('_CRS', template(memory32(base, size), interrupt(gsi, 'level'))),
    ),
  ),
];

/** The generic event device, which tells of the power button (5.6.9). */
const eventDevices = (r: NonNullable<AcpiConfig['reduced']>): a.Aml[] => [
  a.device('PWRB', a.name('_HID', a.hid('PNP0C0C')), a.name('_UID', a.int(0))),
  a.device(
    'GED',
    a.name('_HID', a.str('ACPI0013')),
    a.name('_UID', a.str('GED')),
    a.name('_CRS', template(interrupt(r.irq, 'edge'))),
    a.memory('EREG', r.events, 4),
    a.dwordFields('EREG', 'ESEL'),
    a.method(
      '_EVT',
      1,
      a.store(a.path('ESEL'), a.local(0)),
      a.ifThen(a.masked(a.local(0), a.int(r.powerButton)), a.notify(a.path('PWRB'), a.int(0x80))),
    ),
  ),
];

/** The AML of the whole namespace. Soft-off is SLP_TYP 0 (\_S5) with fixed hardware, suspend to RAM what the board says (\_S3). */
export const dsdtBody = (config: AcpiConfig): Uint8Array =>
  a.bytesOf(
    a.scope(
      '\\_SB',
      ...(config.cpuHotplug === undefined
        ? cpuDevices(config.cpus)
        : [cpuContainer(config.cpus, config.cpuHotplug), simple('CPHR', 'PNP0A06', io(config.cpuHotplug, 12))]),
      ...(config.memoryHotplug ? [memoryContainer(config.memoryHotplug)] : []),
      ...(config.reduced ? eventDevices(config.reduced) : []),
      ...systemDevices(config),
      ...(config.pci ? [rootBridge(config, config.pci)] : isaDevices(config)),
    ),
    ...events(config),
    ...(config.s3 === undefined ? [] : [a.name('\\_S3', a.pkg(a.int(config.s3), a.int(config.s3), a.int(0), a.int(0)))]),
    a.name('\\_S5', a.pkg(a.int(config.reduced?.s5 ?? 0), a.int(0), a.int(0), a.int(0))),
  );
