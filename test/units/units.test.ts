// Privileged unit tests: images in the shape of KVM's unit tests, which print PASS and FAIL on the serial port and leave by isa-debug-exit.
// Each test of an image is one line of its output. With UNITS_EMULATOR=/usr/bin/qemu-system-x86_64 the same images run there.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { withoutKvm } from '../../src/host/node/kvm-testing.ts';
import { program } from '../e2e/program.ts';
import { build, cannotBuild } from './build.ts';
import { fuzzSystem, systemKinds } from './random.ts';

const OURS = 'nonroot-system-x86_64';
const QEMU = '/usr/bin/qemu-system-x86_64';
const EMULATOR = process.env.UNITS_EMULATOR ?? OURS;
const KVM = '-accel kvm';
const EAGER = '-accel dbt,threshold=0';
const MACHINE =
  '-nodefaults -device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -no-reboot';

// What QEMU's translator leaves out, seen with 7.2. All of it is in the manual: limits, types and null selectors of data segments and what
// branches and stacks do at a limit (SDM volume 3, sections 5.3 to 5.5), #AC (6.15), accessed bits of code segments (3.4.5.1) ...
const NO_LIMITS =
  /limit|expand-down|after its|across|offset 4 GiB|4 KiB|read-only segment|to the code segment|by a null selector|readable code|now accessed|LTR of a null|runs over|#SS|#AC/;
// ... flags saved by a task switch, the T bit of a TSS, the null and LDT selectors of task gates (7.3) ...
const NO_TASK_CHECKS = /registers were saved|task gate to the LDT|T bit|double fault through|shows its stack/;
// ... 64 KiB limits of real mode, LOCK before MOV there, VME and PVI (20.2 to 20.4).
const NO_VME = /0xffff:|0x10000:|LOCK MOV|SP 1|^FAIL: (VME|PVI):/;

// A reserved bit is found in an entry that is present, so that bit 0 of the error code is set (4.7), one in a PAE pointer when CR3 is
// loaded and kept until then (4.4.1); MSRs hold canonical addresses (volume 4),
// a stack that is not canonical is #SS (6.15).
const WITHOUT_P =
  /PML5E: #PF\(9\)|PAE: .*#PF\(9\)|#PF\(11\)|PDPTE, when|4 MiB: #PF\(9\)|58 bits|a push there|pointers are those|INVLPG does not/;

// QEMU's MONITOR does not touch its line, and its MWAIT does not wait.
const SPINS = /CPUID leaf 5|page that is not there|ends the wait/;

// QEMU's translator runs PCOMMIT, RDSEED, MMX, SSE2 and AVX2's broadcasts of registers whatever the model, has none of SSE without SSE, and shows AVX,
// FMA, AVX2 and F16C where XSAVE is off.
const OTHER_FEATURES =
  /PCOMMIT|LFENCE: undefined|behind |RDSEED: undefined|(FMA|AVX2?|F16C|VAES)(: .*)?: there|(MMX|SSE2?): .*: undefined|(SSE.*|AES|PCLMULQDQ|.FENCE): there|(PAVGB|PEXTRW|PSHUFB) of MMX|of a register: undefined/;

// A reserved bit is found in an entry that is present, as above; QEMU 7.2 takes CR4.PCIDE without the feature.
const PAGING = /reserved bit|PS in a PML4E|NX without EFER.NXE|PCIDE as CPUID/;
// MOV SS does not hold back its own breakpoint, and there is no INT1; DR7.GD is not there; RF is not set between iterations (17.3.1.1).
const DEBUG = /of MOV SS|DR7.GD|RF is set/;
// QEMU's WRMSR takes any value, and any register that it does not know.
const ANY_MSR = /refuses|bank \d+|unknown register|reserved bits|TSC_ADJUST moves|RDPMC/;
// QEMU takes SMIs at the end of a block and knows no auto-halt restart; without a VGA, RAM shows in its window.
const SMM = /hidden while it is closed|behind OUT|halts again|cannot be opened/;
// QEMU 7.2's 8254 has no null count, BCD, modes 6 and 7, nor gates that stop a count; its outputs of modes 1, 2 and 4 are the other way
// round, a count of mode 1 needs no trigger, and both edges of mode 3 interrupt (8254 datasheet, "Mode definitions", "Read-back command").
const PIT =
  /null count|mode [67] is|stops the (old one|count)|mode 1: (low|high at|a count|a second)|mode 2: (high but|a low)|mode 3: a low|mode 4: high|mode 5: trig|BCD|word 36 with/;
// Its RTC sets PF with PIE alone, pulls its line again while register C has not been read, and alarms are missed where their hour is in
// another half of the day (MC146818A datasheet, "Interrupts", "Alarm").
const RTC = /PF without PIE|while register C|^FAIL: alarm, /;
// Its HPET compares more than it should, and enables messages that it has not (HPET 1.0a, 2.3.8), what matches shows when the host's timer has
// come, and without interrupts not at all; LAPIC: SDM volume 3, 11.5.4.
const HPET = /has passed does not match|without the capability|comparator is the next time|set in the match/;
const LAPIC_TIMER = /divide that is changed/;
// After the last iteration QEMU still stands at the instruction, with a count of 0; OUTS, and stores, do not end its blocks.
const ITERATIONS = /comes behind it|before the next instruction|RF|strikes once/;
// QEMU lets MTRRs and the APIC base have any bit; a reserved bit is found in an entry that is present.
const WIDTH = /MTRR|APIC base|#PF\(9\)/;
/** QEMU's translator does not come to the image's end: it has no performance counters, little of the x2APIC, and `faults` has code that it runs for ever. */
const ENDS_EARLY = 'QEMU does not come to its end';

/** Images with what their command lines add, and lines that may fail: always, and in QEMU, or why it is not run there. */
const images: readonly (readonly [name: string, about: string, args: string, known?: RegExp, qemu?: RegExp | string])[] = [
  ['faults', 'exceptions: vectors, error codes, saved flags and addresses', '-cpu max', undefined, ENDS_EARLY],
  ['debug', 'debug registers and single step', '-cpu max', undefined, DEBUG],
  ['paging', 'rights of pages, protection keys, SMEP, SMAP, PCID, UMIP', '-cpu max', undefined, PAGING],
  ['paging', 'the same where the CPU model has none of these', '-cpu qemu64', undefined, ENDS_EARLY],
  ['la57', '5-level paging', '-cpu max,+la57', undefined, WITHOUT_P],
  ['la57', 'what there is without 5-level paging', '-cpu max', undefined, WITHOUT_P],
  ['mwait', 'MONITOR and MWAIT', '-cpu max,+monitor -smp 2', undefined, SPINS],
  ['mwait', 'MONITOR and MWAIT where the processor has neither', '-cpu max', undefined, ENDS_EARLY],
  ['msr', 'model-specific registers and XCR0: what is kept, what is refused', '-cpu max', undefined, ANY_MSR],
  ['pmu', "performance counters as Intel's processors have them", '-cpu max,vendor=GenuineIntel', undefined, ENDS_EARLY],
  ['pmu', "performance counters as AMD's processors have them", '-cpu max', undefined, ENDS_EARLY],
  ['pmu', 'what there is without performance counters', '-cpu max,-pmu -append none', undefined, ENDS_EARLY],
  ['features', 'instructions of a model that has them all', '-cpu max', undefined, OTHER_FEATURES],
  ['features', 'instructions that an old model lacks are undefined', '-cpu qemu64', undefined, OTHER_FEATURES],
  [
    'features',
    'and those that are switched off',
    '-cpu max,-xsave,-rdrand,-bmi1,-abm,-sse4.2,-movbe,-cx8,-clflush,-sse2',
    undefined,
    OTHER_FEATURES,
  ],
  ['features', 'a model with AVX lacks the 256-bit forms of later features', '-cpu SandyBridge', undefined, OTHER_FEATURES],
  ['features', 'a model without MMX, SSE and LAHF', '-cpu max,-mmx,-sse,-lahf-lm,-mmxext,-sse4.1', undefined, OTHER_FEATURES],
  ['features', 'a model with AVX2 and without its later forms', '-cpu max,-vaes,-vpclmulqdq', undefined, OTHER_FEATURES],
  ['apic', 'the local APIC: modes, IPIs, NMIs, priorities, timers', '-cpu max -smp 2', undefined, ENDS_EARLY],
  // Every block is translated before it runs. Regions keep flags that are dead on the normal path stale in the frame of a fault.
  ['faults', 'exceptions in translated code', `-cpu max ${EAGER}`, /^FAIL: flags (of|before) /],
  ['pmu', 'performance counters in translated code', `-cpu max,vendor=GenuineIntel ${EAGER}`],
  ['paging', 'rights of pages in translated code', `-cpu max ${EAGER}`],
  ['apic', 'the local APIC in translated code', `-cpu max -smp 2 ${EAGER}`],
  ['legacy/segments', 'segments and gates of 16 and 32 bits: limits, types, privilege', '-cpu max', undefined, NO_LIMITS],
  ['legacy/segments', 'segments and gates in translated code', `-cpu max ${EAGER}`],
  ['legacy/paging', '2-level and PAE paging', '-cpu max', undefined, WITHOUT_P],
  ['legacy/tasks', 'task switches', '-cpu max', undefined, NO_TASK_CHECKS],
  ['legacy/virtual8086', 'real and virtual-8086 mode, VME and PVI', '-cpu max', undefined, NO_VME],
  ['events', 'interrupts and traps: when they come', '-cpu max', undefined, ENDS_EARLY],
  ['events', 'interrupts and traps in translated code', `-cpu max ${EAGER}`],
  ['smm', 'system management mode on q35', '-M q35,smm=on -cpu max -smp 2', undefined, SMM],
  ['smm', "system management mode on q35, under this host's KVM", `-M q35,smm=on -cpu max -smp 2 ${KVM}`, undefined, SMM],
  ['smm', 'system management mode on pc, in translated code', `-M pc,smm=on -cpu max -smp 2 ${EAGER}`],
  ['strings', 'string instructions are interrupted between their iterations', '-cpu max', undefined, ITERATIONS],
  ['strings', 'the same in translated code', `-cpu max ${EAGER}`],
  ['width', 'physical addresses of 40 bits', '-cpu max -append bits=40', undefined, WIDTH],
  ['width', 'physical addresses of 32 bits', '-cpu max,phys-bits=32 -append bits=32', undefined, WIDTH],
  ['width', 'physical addresses of 36 bits', '-cpu max,phys-bits=36 -append bits=36', undefined, WIDTH],
  ['width', 'physical addresses of 52 bits', '-cpu max,phys-bits=52 -append bits=52', undefined, WIDTH],
  ['width', '36 bits in CR3', '-cpu max,phys-bits=36 -append bits=36,cr3', undefined, ENDS_EARLY],
  ['width', '46 bits, translated', `-cpu max,phys-bits=46 ${EAGER} -append bits=46,cr3`, undefined, ENDS_EARLY],
  ['timers', 'the 8254 and port 0x61', '-M q35 -cpu max -append pit', undefined, PIT],
  ['timers', 'the RTC', '-M q35 -cpu max -append rtc', undefined, RTC],
  ['timers', 'the HPET', '-M q35 -cpu max -append hpet', undefined, HPET],
  ['timers', "the HPET's messages", '-M q35 -cpu max -global hpet.msi=on -append hpet', undefined, HPET],
  ['timers', "the local APIC's timer", '-M q35 -cpu max -append lapic', undefined, LAPIC_TIMER],
  ['litmus', 'memory order, locked operations and changing code between two vCPUs', '-cpu max -smp 2'],
];

const reason = cannotBuild();
for (const kind of systemKinds) {
  const skip = reason || (EMULATOR !== OURS && 'it holds our tiers against each other');
  test(`random cases in ring 0 leave the same in every tier: ${kind}`, { skip }, async () => {
    assert.deepEqual(await fuzzSystem(kind, 1, 1000), []);
  });
}
for (const [name, about, args, always, qemu] of images) {
  const other = EMULATOR !== OURS;
  const known = other ? qemu : always;
  const skip =
    reason ||
    (args.includes(KVM) && withoutKvm()) ||
    (other && typeof qemu === 'string' ? qemu : other && args.includes(EAGER) && 'only our translator has a threshold');
  test(`unit tests "${name}": ${about}`, { skip }, async () => {
    const whole = [...`${MACHINE} ${args}`.split(' '), '-kernel', build(name)];
    const r = await program(EMULATOR, whole, { seconds: 120 });
    const lines = r.stdout.toString().split(/\r?\n/);
    assert.ok(
      lines.some((line) => line.startsWith('SUMMARY: ')),
      `the image did not come to its end\n${r.text}`,
    );
    const failed = lines.filter((line) => line.startsWith('FAIL'));
    assert.deepEqual(
      failed.filter((line) => !(known instanceof RegExp && known.test(line))),
      [],
      r.text,
    );
    assert.equal(r.code, failed.length > 0 ? 3 : 1, r.text);
    // Lines of values are the same under QEMU.
    const values = (text: string): string[] => text.split(/\r?\n/).filter((line) => line.startsWith('VALUE '));
    const own = values(r.stdout.toString());
    if (own.length > 0 && !other && !args.includes(EAGER) && existsSync(QEMU))
      assert.deepEqual(own, values((await program(QEMU, whole, { seconds: 120 })).stdout.toString()));
  });
}
