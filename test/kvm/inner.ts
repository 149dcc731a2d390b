// Runs inside the outer guest (outer.ts), on a KVM that is real to it: boots Debian on two vCPUs, uses it, moves it between the accelerators
// while a program checks its registers, its memory and the time, and tears machines down. One line `ok NAME` or `not ok NAME: WHY` each.

import { readFile } from 'node:fs/promises';
import { nodeHost } from '../../src/host/node/cli-host.ts';
import { NodeMachine } from '../../src/host/node/machine.ts';
import { parseCpu } from '../../src/machine/options.ts';
import type { MachineSetup } from '../../src/machine/running.ts';

const found = nodeHost('0').kvm();
const LIMIT = 150_000;

class Guest {
  readonly machine: NodeMachine;
  #out = '';

  constructor(config: Partial<MachineSetup['config']>, kernel: Uint8Array, initrd: Uint8Array, append: string) {
    // QEMU 7.2's emulated AMD-V does not intercept XSETBV: KVM never learns the guest's XCR0, and XRSTOR of what it lacks faults.
    const { cpuModel, paravirtual } = parseCpu('max,-xsave');
    this.machine = new NodeMachine({
      config: {
        cpus: 2, memory: 192 << 20, cpuModel, paravirtual, rtcOffset: 0, trace: [], accel: 'kvm',
        tscKhz: found.tscControl ? undefined : found.tscKhz, ...config,
      },
      files: { kernel, name: 'kernel', initrd, append },
      serial: (port, bytes) => {
        if (port === 0) this.#out += Buffer.from(bytes).toString('latin1');
      },
      report: () => {},
      noReboot: true,
    }); // biome-ignore format: one object
  }
  async until(pattern: RegExp): Promise<string> {
    const end = Date.now() + LIMIT;
    for (;;) {
      const out = this.#out;
      if (pattern.test(out)) return out;
      if (Date.now() > end) throw new Error(`no ${pattern} in: ${out.slice(-1500)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
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

async function check(name: string, action: () => Promise<void>): Promise<boolean> {
  const start = Date.now();
  try {
    await action();
    console.log(`ok ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
    return true;
  } catch (error) {
    console.log(`not ok ${name}: ${(error as Error).message.replaceAll('\n', ' | ')}`);
    return false;
  }
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

const [kernel, initrd, append] = await Promise.all(['kernel', 'initrd', 'append'].map((name) => readFile(`/inner/${name}`)));
const boot = (config: Partial<MachineSetup['config']> = {}): Guest => {
  const guest = new Guest(config, kernel!, initrd!, `${append!.toString()} mitigations=off`);
  guest.machine.start();
  return guest;
};
/** Seconds since the guest started; what the shell tells of its jobs may stand before them. */
const uptime = async (g: Guest): Promise<number> =>
  Number(/^([\d.]+) [\d.]+\r?$/m.exec(await g.command('cat /proc/uptime'))?.[1]);

await check('the probe finds this KVM good', async () => expect(found.why === undefined, `${found.why}`));

let guest: Guest | undefined;
const booted = await check('Debian boots on two vCPUs, local APICs in the kernel', async () => {
  guest = boot();
  await guest.until(/# /);
  const out = await guest.command('nproc; uname -m');
  expect(/^2\r?\nx86_64/.test(out), out);
});
if (booted && guest) {
  const g = guest;
  // A shell loop that adds up: wrong registers or memory show in its sum, which is printed each time it is done.
  const LOOP = 'i=0; s=0; while [ $i -lt 3000 ]; do i=$((i+1)); s=$((s+i*i)); done; echo SUM $s';
  const SUM = 'SUM 9004500500';
  await check('a program computes what it must', async () => {
    const out = await g.command(LOOP);
    expect(out.includes(SUM), out);
  });
  for (const to of ['dbt', 'kvm', 'dbt', 'kvm'] as const) {
    await check(`the running guest moves to ${to} under load`, async () => {
      const before = await uptime(g);
      await g.command(`(${LOOP}) > /tmp/sum & true`);
      await g.machine.setAccel(to);
      expect(g.machine.accel === to, g.machine.accel);
      const out = await g.command('wait; cat /tmp/sum');
      expect(out.includes(SUM), out);
      const after = await uptime(g);
      expect(after >= before && after < before + LIMIT / 1000, `the guest's clock went from ${before} to ${after}`);
    });
  }
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
await check('machines are torn down in any state', async () => {
  for (let n = 0; n < 6; n++) {
    const g = boot({ cpus: 1 + (n & 1), irqchip: n & 2 ? 'off' : 'split' });
    await new Promise((resolve) => setTimeout(resolve, 300 * n));
    await g.end();
  }
});
process.exit(0);
