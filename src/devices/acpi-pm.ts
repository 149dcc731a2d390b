// The fixed ACPI hardware of a PC: power management events and control, timer, general-purpose events, SMI command port. ACPI specification 6.5, section 4.8; addresses as in the ICH9 datasheet (316972), section 13.8.3.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Clock, Timed } from '../bus/clock.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import { registers, ro, rw, w1c } from '../bus/registers.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

/** What the firmware's FADT says of these registers. Ports are offsets from the base. */
export const acpiPm = {
  base: 0x600,
  length: 0x80,
  pm1Event: 0,
  pm1Control: 4,
  timer: 8,
  gpe0: 0x20,
  gpe0Length: 16,
  smiCommand: 0xb2,
  acpiEnable: 2,
  acpiDisable: 3,
  sci: 9,
  /** SLP_TYP of S5 and S3 in the DSDT's `_S5` and `_S3`. */
  s5: 0,
  s3: 1,
} as const;

export const acpiPmLayout = struct(
  {
    status: 'u16',
    enable: 'u16',
    control: 'u16',
    smiCommand: 'u8',
    smiStatus: 'u8',
    gpeStatus: ['u8', 8],
    gpeEnable: ['u8', 8],
    /** SMI_EN; 1 once its lowest bit is locked. */
    smiEnable: 'u32',
    smiLocked: 'u8',
    /** Time in ns when the timer's top bit last was looked at. */
    served: 'f64',
  },
  { name: 'acpi-pm', version: 2 },
);

/** Timer frequency in Hz. */
const hz = 3_579_545;
const pm1 = { timer: 1, global: 0x20, powerButton: 0x100, sleepButton: 0x200, alarm: 0x400, wake: 0x8000 } as const;
const control = { sciEnable: 1, sleepEnable: 0x2000, kept: 0x1c07 } as const;
const smiEnable = { global: 1, apm: 0x20 } as const;
const pm1Writable = pm1.timer | pm1.global | pm1.powerButton | pm1.sleepButton | pm1.alarm;

export interface AcpiPmOptions {
  readonly arena: Arena;
  readonly clock: Clock;
  /** The system control interrupt: active level, ISA interrupt 9. */
  readonly sci: IrqLine;
  readonly retime?: () => void;
  /** Soft-off (S5). */
  readonly powerOff: () => void;
  /** Suspend to RAM (S3); powers off when absent. */
  readonly suspend?: () => void;
  /** Where there is system management mode: a command of the APM port that is not for ACPI was given. */
  readonly smi?: () => void;
  readonly report?: Report;
  /** 24 or 32 bits of timer; 32 when absent. */
  readonly timerBits?: 24 | 32;
}

export class AcpiPm implements Timed {
  readonly s: ViewOf<typeof acpiPmLayout>;
  readonly handler: Handler;
  readonly #o: AcpiPmOptions;
  readonly #period: number;

  constructor(o: AcpiPmOptions) {
    this.#o = o;
    this.#period = 2 ** (o.timerBits ?? 32);
    this.s = o.arena.alloc(acpiPmLayout);
    this.handler = acpiPmRegisters.bind(this, o.report);
  }

  reset(): void {
    const s = this.s;
    s.status = 0;
    s.enable = 0;
    s.control = 0;
    s.smiCommand = 0;
    s.smiStatus = 0;
    // Without system management mode, APMC_EN alone says that it is set up already.
    s.smiEnable = this.#o.smi ? 0 : smiEnable.apm;
    s.smiLocked = 0;
    s.gpeStatus.fill(0);
    s.gpeEnable.fill(0);
    s.served = this.#o.clock.now();
    this.#o.sci.set(0);
  }

  /** Maps the SMI command port; the block at `acpiPm.base` is mapped by the ISA bridge's PMBASE, or here when `fixed`. */
  map(ports: AddressSpace, fixed: boolean): void {
    if (fixed) ports.map(acpiPm.base, acpiPm.length, this.handler, 'acpi-pm');
    ports.map(
      acpiPm.smiCommand,
      2,
      {
        max: 1,
        read: (o) => (o === 0 ? this.s.smiCommand : this.s.smiStatus),
        write: (o, _, v) => {
          if (o === 0) this.#command(v);
          else this.s.smiStatus = v;
        },
      },
      'apm-io',
    );
  }

  /** General-purpose events 0 to 15 at fixed ports, as PIIX4 has them: status in two bytes, then enables. */
  mapGpe(ports: AddressSpace, base: number): void {
    const { s } = this;
    ports.map(
      base,
      4,
      {
        max: 1,
        read: (o) => (o < 2 ? s.gpeStatus[o]! : s.gpeEnable[o - 2]!),
        write: (o, _, v) => {
          if (o < 2) s.gpeStatus[o] = s.gpeStatus[o]! & ~v;
          else s.gpeEnable[o - 2] = v;
          this.update();
        },
      },
      'acpi-gpe0',
    );
  }

  /** Presses the power button. With the board's lock held. */
  powerButton(): void {
    this.s.status |= pm1.powerButton;
    this.update();
  }

  sleepButton(): void {
    this.s.status |= pm1.sleepButton;
    this.update();
  }

  /** Raises general-purpose event `n`, 0 to 63. */
  gpe(n: number): void {
    this.s.gpeStatus[n >>> 3] = this.s.gpeStatus[n >>> 3]! | (1 << (n & 7));
    this.update();
  }

  /** The status after a sleep has ended, on a block that was reset: what firmware does, and whether it was the RTC's alarm. */
  woken(by: 'alarm' | 'other'): void {
    this.s.control |= control.sciEnable;
    this.s.status |= pm1.wake | (by === 'alarm' ? pm1.alarm : 0);
    this.update();
  }

  /** The timer, as the guest reads it. */
  get count(): number {
    return this.#ticks(this.#o.clock.now()) % this.#period;
  }

  readStatus(): number {
    this.#serve(this.#o.clock.now());
    return this.s.status;
  }

  clearStatus(ones: number): void {
    this.#serve(this.#o.clock.now());
    this.s.status &= ~ones;
    this.update();
  }

  setEnable(value: number): void {
    this.s.enable = value & pm1Writable;
    this.update();
    this.#o.retime?.();
  }

  setControl(value: number): void {
    // Software cannot change SCI_EN here, SLP_EN reads as zero.
    this.s.control = (value & control.kept & ~control.sciEnable) | (this.s.control & control.sciEnable);
    if ((value & control.sleepEnable) === 0) return;
    const type = (value >>> 10) & 7;
    if (type === acpiPm.s5) this.#o.powerOff();
    else if (type === acpiPm.s3) (this.#o.suspend ?? this.#o.powerOff)();
    else this.#o.report?.('acpi-pm', `sleep of type ${type}: there are ${acpiPm.s5} and ${acpiPm.s3}`);
  }

  next(): number {
    if ((this.s.enable & pm1.timer) === 0) return Number.POSITIVE_INFINITY;
    const half = this.#period / 2;
    return Math.ceil((((Math.floor(this.#ticks(this.s.served) / half) + 1) * half) / hz) * 1e9);
  }

  tick(now: number): void {
    this.#serve(now);
    this.update();
  }

  /** Drives the SCI. */
  update(): void {
    const s = this.s;
    let raised = (s.status & s.enable & pm1Writable) !== 0;
    for (let i = 0; i < s.gpeStatus.length; i++) raised ||= (s.gpeStatus[i]! & s.gpeEnable[i]!) !== 0;
    this.#o.sci.set(raised && (s.control & control.sciEnable) !== 0 ? 1 : 0);
  }

  #ticks(now: number): number {
    return Math.floor((now * hz) / 1e9 + 1e-6);
  }

  /** The timer's status bit is set whenever its top bit changes. */
  #serve(now: number): void {
    const half = this.#period / 2;
    if (Math.floor(this.#ticks(now) / half) !== Math.floor(this.#ticks(this.s.served) / half)) this.s.status |= pm1.timer;
    this.s.served = now;
  }

  /** Whether a command of the APM port interrupts, as the ICH9 has it. */
  get apmInterrupts(): boolean {
    return (this.s.smiEnable & smiEnable.apm) !== 0;
  }

  /** GBL_SMI_EN cannot be changed any more. */
  lockSmi(): void {
    this.s.smiLocked = 1;
  }

  setSmiEnable(value: number): void {
    if (!this.#o.smi) return;
    const kept = this.s.smiLocked ? smiEnable.global : 0;
    this.s.smiEnable = (this.s.smiEnable & kept) | (value & ~kept);
  }

  /** ACPI is switched here, as QEMU does it, without a handler of the firmware; all other commands are the handler's. */
  #command(value: number): void {
    this.s.smiCommand = value;
    if (value === acpiPm.acpiEnable) this.s.control |= control.sciEnable;
    else if (value === acpiPm.acpiDisable) this.s.control &= ~control.sciEnable;
    else this.#o.smi?.();
    this.update();
  }
}

/** Offsets from the base. */
export const acpiPmRegisters = registers<AcpiPm>('acpi-pm', acpiPm.length, [
  w1c(
    0x00,
    2,
    'PM1_STS',
    (d) => d.readStatus(),
    (d, v) => d.clearStatus(v),
  ),
  rw(
    0x02,
    2,
    'PM1_EN',
    (d) => d.s.enable,
    (d, v) => d.setEnable(v),
  ),
  rw(
    0x04,
    2,
    'PM1_CNT',
    (d) => d.s.control,
    (d, v) => d.setControl(v),
  ),
  ro(0x08, 4, 'PM_TMR', (d) => d.count),
  rw(
    0x30,
    4,
    'SMI_EN',
    (d) => d.s.smiEnable,
    (d, v) => d.setSmiEnable(v),
  ),
  rw(
    0x34,
    4,
    'SMI_STS',
    () => 0,
    () => {},
  ),
  ...Array.from({ length: 8 }, (_, i) => [
    w1c<AcpiPm>(
      0x20 + i,
      1,
      `GPE0_STS${i}`,
      (d) => d.s.gpeStatus[i]!,
      (d, v) => {
        d.s.gpeStatus[i] = d.s.gpeStatus[i]! & ~v;
        d.update();
      },
    ),
    rw<AcpiPm>(
      0x28 + i,
      1,
      `GPE0_EN${i}`,
      (d) => d.s.gpeEnable[i]!,
      (d, v) => {
        d.s.gpeEnable[i] = v;
        d.update();
      },
    ),
  ]).flat(),
]);
