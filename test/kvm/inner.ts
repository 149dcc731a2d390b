// Runs inside the outer guest (outer.ts), on a KVM that is real to it: boots Debian on two vCPUs with a disk and a network, uses it, moves it
// between the accelerators while a program checks its registers, its memory and the time, saves it under one and restores it under the other,
// and tears machines down. One line `ok NAME` or `not ok NAME: WHY` each.

import { createHash, randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { OpenedDevices } from '../../src/api/machine.ts';
import { parseArguments } from '../../src/cli/args.ts';
import { runOptions } from '../../src/cli/run.ts';
import { deviceChoices, openDevices } from '../../src/cli/run-devices.ts';
import { inMemory } from '../../src/firmware/target.ts';
import { nodeHost } from '../../src/host/node/cli-host.ts';
import { NodeMachine } from '../../src/host/node/machine.ts';
import { activity, tscOffset } from '../../src/isa/x86/state.ts';
import { TSC_KHZ } from '../../src/machine/config.ts';
import { parseCpu } from '../../src/machine/options.ts';
import type { MachineSetup } from '../../src/machine/running.ts';
import { check, expect, LIMIT, PROGRAM, secondsOf, THREE_MORE } from './check.ts';

/** Moves to and fro; with an argument, as many, and nothing else. */
const MOVES = Number(process.argv[2] ?? 4);
const ALL = process.argv[2] === undefined;
const host = nodeHost('0');
const found = host.kvm(true);
// Without a trial, which may be over before it has asked.
const { tscKhz, tscControl } = host.kvm(false);

interface GuestOptions extends Partial<MachineSetup['config']> {
  /** Disks and networks, opened. */
  readonly opened?: OpenedDevices;
  /** It goes on from a saved state. */
  readonly restored?: boolean;
}

class Guest {
  readonly machine: NodeMachine;
  #out = '';

  constructor({ opened, restored, ...config }: GuestOptions, append: string) {
    // QEMU 7.2's emulated AMD-V does not intercept XSETBV: KVM never learns the guest's XCR0, and XRSTOR of what it lacks faults.
    const { cpuModel, paravirtual } = parseCpu('max,-xsave');
    this.machine = new NodeMachine({
      config: {
        cpus: 2, memory: 192 << 20, cpuModel, paravirtual, rtcOffset: 0, trace: [], accel: 'kvm',
        tscKhz: tscControl || tscKhz === 0 ? undefined : tscKhz, ...(opened ? { devices: opened.devices } : {}), ...config,
      },
      files: { kernel: kernel!, name: 'kernel', initrd: initrd!, append, vmlinux: () => inMemory(vmlinux!) },
      ...(opened ? { backends: opened.backends } : {}),
      serial: (port, bytes) => {
        if (port === 0) this.#out += Buffer.from(bytes).toString('latin1');
      },
      report: () => {},
      noReboot: true,
      restored: restored ?? false,
    }); // biome-ignore format: one object
  }
  async until(pattern: RegExp): Promise<string> {
    const end = Date.now() + LIMIT;
    for (;;) {
      const out = this.#out;
      if (pattern.test(out)) return out;
      if (Date.now() > end) throw new Error(`no ${pattern} in: ${out.slice(-1500)}\n${await this.#standing()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  /** What stands still, and where: for a guest that does not answer. */
  async #standing(): Promise<string> {
    const { machine } = this;
    const { board } = machine;
    const print = (value: unknown): string =>
      JSON.stringify(value, (_, v) =>
        typeof v === 'bigint'
          ? `0x${v.toString(16)}`
          : ArrayBuffer.isView(v)
            ? [...(v as Uint32Array)].map((n) => (n >>> 0).toString(16)).join(' ')
            : v,
      );
    const look = (): string => {
      const [uart, ioapic] = [board.uarts[0]!.s, board.ioapics[0]!.s];
      const lines = [
        `now ${board.clock.now()} COM1 ier ${uart.ier} rx ${uart.rxCount} the ${uart.threPending} holding ${uart.holdingFull} irq ${uart.irq}`,
        `I/O APIC levels ${ioapic.levels.toString(16)} ${print(ioapic.low)}`,
      ];
      for (const { cpu, s, timer } of board.lapics) {
        const state = machine.vcpuState(cpu);
        lines.push(
          `CPU ${cpu} ${print(machine.registers(cpu))} activity ${state.getInt32(activity.offset, true)} tsc +${state.getBigInt64(tscOffset.offset, true)}`,
          `APIC ${cpu} irr ${print(s.irr)} isr ${print(s.isr)} tpr ${s.tpr} svr ${s.svr} lvt ${print(s.lvt)} deadline ${timer.deadline} expires ${s.expires} events ${s.events[0]}`,
        );
      }
      return lines.join('\n');
    };
    const first = await machine.hold(look);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return `${machine.accel}\n${first}\nand then\n${await machine.hold(look)}`;
  }
  /** Runs a command in the guest's shell; what it prints. */
  async command(text: string): Promise<string> {
    this.#out = '';
    this.machine.input(0, Buffer.from(`${text}; echo E"ND"\n`));
    const out = await this.until(/END\r\n/);
    return out.slice(out.indexOf('\n') + 1, out.lastIndexOf('END'));
  }
  async end(): Promise<void> {
    this.machine.quit();
    await this.machine.ended;
  }
}

const [kernel, vmlinux, initrd, append] = await Promise.all(
  ['kernel', 'vmlinux', 'initrd', 'append'].map((name) => readFile(`/inner/${name}`)),
);
const boot = (o: GuestOptions = {}): Guest => {
  const guest = new Guest(o, `${append!.toString()} mitigations=off`);
  guest.machine.start();
  return guest;
};
/** A machine that goes on, under `accel`, where another one stands. */
async function moved(from: Guest, accel: 'dbt' | 'kvm'): Promise<Guest> {
  await from.machine.pause();
  const parts: Uint8Array[] = [];
  for await (const part of from.machine.saveState()) parts.push(part.slice());
  await from.end();
  const guest = new Guest({ accel, restored: true }, '');
  await guest.machine.loadState(
    (async function* () {
      yield* parts;
    })(),
  );
  guest.machine.start();
  return guest;
}
/** Seconds since the guest started. */
const uptime = async (g: Guest): Promise<number> => secondsOf(await g.command('cat /proc/uptime'));

/** How far the first vCPU's time-stamp counter is ahead of the board's, in ms. */
const tscAhead = (g: Guest): Promise<number> =>
  g.machine.hold(
    () => Number(g.machine.vcpuState(0).getBigInt64(tscOffset.offset, true)) / (g.machine.board.config.tscKhz ?? TSC_KHZ),
  );

// A machine that has its cores for others meanwhile may emulate even the best of three tries too slowly.
await check('the probe finds this KVM right', async () =>
  expect(found.why === undefined ? found.usable : found.why.includes('is slow'), `${found.why}`),
);

const DISK = '/tmp/disk.img';
const content = randomBytes(4 << 20);
const md5 = createHash('md5').update(content).digest('hex');
await writeFile(DISK, content);
const server = createServer((_, response) => response.end(content));
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address() as AddressInfo;
const devices = deviceChoices(parseArguments(runOptions, 0, ['--disk', DISK, '--net', 'user']));

let guest: Guest | undefined;
const booted = await check('Debian boots on two vCPUs, all interrupt controllers in the kernel', async () => {
  guest = boot({ irqchip: 'on', opened: await openDevices(devices, host, { command: false, ours: false }) });
  await guest.until(/# /);
  const out = await guest.command('nproc; uname -m');
  expect(/^2\r?\nx86_64/.test(out), out);
});
if (booted && guest) {
  const g = guest;
  await check('a virtio disk is read and written', async () => {
    const out = await g.command('md5sum /dev/vda; dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync 2>&1');
    expect(out.includes(md5), out);
    const now = await readFile(DISK);
    expect(
      now.subarray(0, 1 << 20).every((b) => b === 0),
      'what the guest has written is not in the file',
    );
    expect(now.subarray(1 << 20).equals(content.subarray(1 << 20)), 'the guest has written elsewhere');
  });
  await check('a virtio network card carries what a server of the host sends', async () => {
    const out = await g.command(`wget -q -O - http://10.0.2.2:${port}/ | md5sum`);
    expect(out.includes(md5), out);
  });
  await check('a program computes what it must', async () => {
    await g.command(PROGRAM);
    const out = await g.command(THREE_MORE);
    expect(out.includes('RIGHT'), out);
  });
  for (let n = 0; n < MOVES; n++) {
    const to = n & 1 ? 'kvm' : 'dbt';
    await check(`the running guest moves to ${to} under load`, async () => {
      const before = await uptime(g);
      const counter = await tscAhead(g);
      await g.machine.setAccel(to);
      const moved = (await tscAhead(g)) - counter;
      expect(Math.abs(moved) < 100, `the guest's time-stamp counter went on by ${moved.toFixed(0)} ms more than the board's`);
      expect(g.machine.accel === to, g.machine.accel);
      const out = await g.command(THREE_MORE);
      expect(out.includes('RIGHT'), out);
      const after = await uptime(g);
      expect(after >= before && after < before + LIMIT / 1000, `the guest's clock went from ${before} to ${after}`);
    });
  }
  if (!ALL) process.exit(0);
  await check('a paused guest stands still, and goes on', async () => {
    const before = await uptime(g);
    await g.machine.pause();
    const { rip } = g.machine.registers(0);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect(g.machine.registers(0)['rip'] === rip, 'a paused vCPU ran');
    g.machine.resume();
    expect((await uptime(g)) >= before, 'time went back');
  });
  await check('the guest powers off', async () => {
    g.machine.input(0, Buffer.from('poweroff -f\n'));
    const end = await g.machine.ended;
    expect(end.kind === 'powerOff', JSON.stringify(end));
  });
}
let saved: Guest | undefined;
await check('a guest to be saved boots, its local APICs alone in the kernel', async () => {
  const g = boot({ irqchip: 'split' });
  await g.until(/# /);
  await g.command(PROGRAM);
  saved = g;
});
for (const to of ['dbt', 'kvm'] as const) {
  if (!saved) break;
  await check(`what was saved goes on under ${to}`, async () => {
    const before = await uptime(saved!);
    saved = await moved(saved!, to);
    expect(saved.machine.accel === to, saved.machine.accel);
    const out = await saved.command(`${THREE_MORE}; grep -c ^processor /proc/cpuinfo`);
    expect(out.includes('RIGHT') && /^2\r?$/m.test(out), out);
    const after = await uptime(saved);
    expect(after >= before && after < before + LIMIT / 1000, `the guest's clock went from ${before} to ${after}`);
  });
}
await saved?.end();
await check('machines are torn down in any state', async () => {
  for (let n = 0; n < 6; n++) {
    const g = boot({ cpus: 1 + (n & 1), irqchip: (['split', 'off', 'on'] as const)[n >> 1]! });
    await new Promise((resolve) => setTimeout(resolve, 300 * n));
    await g.end();
  }
});
process.exit(0);
