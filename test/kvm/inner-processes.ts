// Runs inside the outer guest (outer.ts), on a KVM that is real to it: one guest of the emulator's program, which a debugger looks at, whose memory shrinks
// and grows by balloon and by modules, and which moves on from process to process while it works. One line `ok NAME` or `not ok NAME: WHY` each.
// The arguments are what each process runs on.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { probeKvm } from '../../src/accel/kvm/probe.ts';
import { kvmHost } from '../../src/host/node/kvm-native.ts';
import { PacketReader, packet } from '../../src/monitor/gdb/packet.ts';
import { EmulatorProcess } from '../e2e/emulator.ts';
import { check, expect, LIMIT, PROGRAM, secondsOf, THREE_MORE } from './check.ts';

const [firstAccel = 'kvm', ...otherAccels] = process.argv.length > 2 ? process.argv.slice(2) : ['kvm', 'kvm'];
/** Where the inner guest's files are, and the emulator's program. */
const INNER = process.env['INNER'] ?? '/inner';
const PROGRAM_PATH = process.env['EMULATOR'] ?? '/bin/nonroot-emulator';
const MIB = 2 ** 20;
const MEMORY = 192;
const folder = await mkdtemp(join(tmpdir(), 'inner-'));
const GDB = join(folder, 'gdb');

/** What KVM cannot change, the translator takes as well. */
const { tscKhz, tscControl } = probeKvm(kvmHost(), false);
const frequency = tscControl || tscKhz === 0 ? '' : `,tsc-frequency=${tscKhz * 1000}`;
const append = (await readFile(join(INNER, 'append'), 'utf8')).trim();
const common = [
  ...['-M', 'q35', '-smp', '2', '-m', `${MEMORY},slots=2,maxmem=1G`, '-nodefaults', '-display', 'none', '-serial', 'stdio'],
  // The emulated AMD-V does not intercept XSETBV (inner.ts). Another accelerator's processor has no other width of addresses.
  ...['-cpu', `max,-xsave,host-phys-bits=off${frequency}`, '-kernel', join(INNER, 'kernel'), '-initrd', join(INNER, 'initrd')],
  // Else a guest whose memory may reach 4 GiB keeps 64 MiB for devices that do not. What is free holds zeros, which a migration does not send.
  ...['-append', `${append} mitigations=off swiotlb=noforce init_on_free=1`, '-device', 'virtio-balloon-pci,id=balloon'],
];
const started: EmulatorProcess[] = [];
async function emulator(accel: string, ...more: string[]): Promise<EmulatorProcess> {
  const e = await EmulatorProcess.start(folder, `p${started.length}`, [...common, '-accel', accel, ...more], PROGRAM_PATH);
  started.push(e);
  return e;
}

/** MiB of the guest's memory that the host has: of the process's mappings, it is the one that has most. */
const resident = async (e: EmulatorProcess): Promise<number> => {
  const maps = await readFile(`/proc/${e.child.pid}/smaps`, 'latin1');
  return Math.max(...[...maps.matchAll(/^Rss: +(\d+) kB/gm)].map((m) => Number(m[1]))) / 1024;
};
/** Memory that the guest has, in MiB. */
const total = async (e: EmulatorProcess): Promise<number> =>
  Number(
    /has (\d+) MiB/.exec(await e.command(`awk '/MemTotal/ { print "h""as", int($2 / 1024), "MiB" }' /proc/meminfo`, LIMIT))?.[1],
  );
/** Writes so many MiB of the guest's memory, and lets them go. */
const touch = (e: EmulatorProcess, mib: number): Promise<string> =>
  e.command(`dd if=/dev/zero of=/tmp/fill bs=1M count=${mib} 2>&1; rm /tmp/fill`, LIMIT);
/** Fills memory with so many MiB of noise, twice, and says SAME where both are the same. */
const compare = (place: string, mib: number): string =>
  `dd if=/dev/urandom of=${place}/a bs=1M count=${mib} 2>/dev/null; cp ${place}/a ${place}/b; cmp ${place}/a ${place}/b && echo SA"ME"; rm ${place}/a ${place}/b`;
async function balloon(e: EmulatorProcess, mib: number): Promise<void> {
  await e.qmp('balloon', { value: mib * MIB });
  const is = async (): Promise<true | undefined> =>
    ((await e.qmp('query-balloon')) as { actual: number }).actual === mib * MIB ? true : undefined;
  await e.until(`a balloon that leaves ${mib} MiB`, is, LIMIT);
}

/** A debugger: sends packets, and gives the answers. */
class Debugger {
  readonly #socket = connect(GDB);
  readonly #reader = new PacketReader();
  readonly #answers: string[] = [];
  constructor() {
    this.#socket.on('error', () => {});
    this.#socket.on('data', (bytes: Buffer) => {
      for (const item of this.#reader.push(bytes)) {
        if (!('packet' in item)) continue;
        this.#socket.write('+');
        this.#answers.push(Buffer.from(item.packet).toString('latin1'));
      }
    });
  }
  async ask(e: EmulatorProcess, text: string): Promise<string> {
    this.#socket.write(packet(text));
    return e.until(`gdb's answer to ${text}`, () => this.#answers.shift(), LIMIT);
  }
  close(): void {
    this.#socket.destroy();
  }
}
/** A register in an answer to `g`, 64 bits: RSP is the seventh, RIP the sixteenth. */
const register = (answer: string, n: number): bigint => Buffer.from(answer.slice(16 * n, 16 * n + 16), 'hex').readBigUInt64LE();
const [RSP, RIP] = [7, 16];

let guest: EmulatorProcess | undefined;
const booted = await check("Debian boots by the emulator's program", async () => {
  const e = await emulator(firstAccel, '-gdb', `unix:${GDB},server=on,wait=off`);
  await e.shell(LIMIT);
  const { enabled } = (await e.qmp('query-kvm')) as { enabled: boolean };
  expect(enabled === (firstAccel === 'kvm'), `KVM is ${enabled ? 'on' : 'off'}`);
  guest = e;
});
if (booted && guest) {
  const first = guest;
  await check('a debugger holds the guest, reads and writes it, steps it and lets it go', async () => {
    const gdb = new Debugger();
    expect((await gdb.ask(first, '?')).startsWith('T'), 'it does not say why it stands');
    expect((await first.status()) === 'paused', 'the guest is not held');
    expect(/^m0?1,0?2$/.test(await gdb.ask(first, 'qfThreadInfo')), 'there are not two vCPUs');
    const registers = await gdb.ask(first, 'g');
    const [rsp, rip] = [register(registers, RSP), register(registers, RIP)];
    expect((await gdb.ask(first, 'g')) === registers, 'registers change while it is held');
    const code = await gdb.ask(first, `m${rip.toString(16)},8`);
    const seen = (await first.hmp(`x /8xb 0x${rip.toString(16)}`)).replace(/^.*?:/, '').replaceAll(/\s+|0x/g, '');
    expect(/^[\da-f]{16}$/.test(code) && code === seen, `${code} for gdb, ${seen} for the monitor`);
    // Below its stack nothing of a kernel is in use; of a program 128 bytes are.
    const below = (rsp - 4096n).toString(16);
    const old = await gdb.ask(first, `m${below},8`);
    expect((await gdb.ask(first, `M${below},8:0123456789abcdef`)) === 'OK', 'memory cannot be written');
    expect((await gdb.ask(first, `m${below},8`)) === '0123456789abcdef', 'what was written is not there');
    expect((await gdb.ask(first, `M${below},8:${old}`)) === 'OK', 'memory cannot be written back');
    const places = new Set([rip]);
    for (let n = 0; n < 3; n++) {
      const stop = await gdb.ask(first, 's');
      expect(/^T05/.test(stop), `a step ends with ${stop}`);
      places.add(register(await gdb.ask(first, 'g'), RIP));
    }
    expect(places.size > 1, `three steps from ${rip.toString(16)} lead nowhere`);
    expect((await gdb.ask(first, 'D')) === 'OK', 'it is not let go');
    gdb.close();
    expect((await first.command('echo al"ive"', LIMIT)) === 'alive', 'the guest does not go on');
  });
  await check("a balloon gives the guest's memory to the host, and gets it back", async () => {
    await touch(first, 64);
    const full = await resident(first);
    const had = await total(first);
    await balloon(first, MEMORY - 64);
    const less = await resident(first);
    expect(full - less > 56, `the host has ${full} MiB of it before, ${less} with a balloon of 64`);
    expect(Math.abs(had - 64 - (await total(first))) <= 1, 'the guest has not 64 MiB less');
    await balloon(first, MEMORY);
    expect((await total(first)) === had, 'the guest has not all of it again');
    expect(/SAME/.test(await first.command(compare('/tmp', 34), LIMIT)), 'what is written to it is not there');
    const again = await resident(first);
    expect(again - less > 40, `the host has ${less} MiB of it with the balloon, ${again} after it`);
  });
  await check('a module of memory comes to the guest and goes', async () => {
    const had = await total(first);
    await first.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: 'm', size: 128 * MIB });
    await first.qmp('device_add', { driver: 'pc-dimm', id: 'd', memdev: 'm' });
    const state = '/sys/devices/system/memory/memory32/state';
    await first.command(
      `until [ -e ${state} ]; do sleep 0.1; done; grep -q online ${state} || echo online_movable > ${state}`,
      LIMIT,
    );
    expect((await total(first)) === had + 128, 'the guest has not 128 MiB more');
    // More than there was before: the new memory is written, too.
    const there = 'mkdir -p /t; mount -t tmpfs -o size=240m none /t';
    expect(
      /SAME/.test(await first.command(`${there}; ${compare('/t', 100)}; umount /t`, LIMIT)),
      'what is written to it is not there',
    );
    await first.qmp('device_del', { id: 'd' });
    await first.event('DEVICE_DELETED', undefined, LIMIT);
    await first.qmp('object-del', { id: 'm' });
    expect((await total(first)) === had, 'the guest has not what it had before');
  });
  await first.command(PROGRAM, LIMIT);
  // Writes to memory, so that there is always something that was written since it was sent.
  await first.command(
    '(while :; do dd if=/dev/zero of=/tmp/r bs=64k count=16 conv=notrunc; sleep 0.5; done) >/dev/null 2>&1 & true',
    LIMIT,
  );
  for (const accel of otherAccels) {
    const from = guest;
    const went = await check(`the working guest moves to a process on ${accel}, with what it writes meanwhile`, async () => {
      const start = Date.now();
      /** Where the time goes. */
      const since = (what: string): void => console.log(`# ${what} after ${((Date.now() - start) / 1000).toFixed(1)} s`);
      const before = secondsOf(await from.command('cat /proc/uptime', LIMIT));
      const to = await emulator(accel, '-incoming', 'defer');
      since('the other process waits');
      const uri = `unix:${join(folder, `m${started.length}`)}`;
      for (const e of [from, to]) {
        e.events.length = 0;
        await e.qmp('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
      }
      // Not to be had: there is another pass, of what was written during the first. That will do.
      await from.qmp('migrate-set-parameters', { 'downtime-limit': 0 });
      await to.qmp('migrate-incoming', { uri });
      await from.qmp('migrate', { uri });
      const second = (): true | undefined => {
        if (from.events.some(({ data }) => data?.['status'] === 'failed')) throw new Error(`it fails: ${to.said}`);
        return from.events.some(({ data }) => Number(data?.['pass']) >= 2) || undefined;
      };
      await from.until('a second pass', second, LIMIT);
      since('the second pass begins');
      await from.qmp('migrate-set-parameters', { 'downtime-limit': 10_000 });
      await from.event('MIGRATION', 'completed', LIMIT);
      await to.event('MIGRATION', 'completed', LIMIT);
      const info = (await from.qmp('query-migrate')) as { ram: { 'dirty-sync-count': number; transferred: number } };
      expect(info.ram['dirty-sync-count'] >= 2, `passes over memory: ${info.ram['dirty-sync-count']}`);
      expect((await from.status()) === 'postmigrate', 'the first one runs on');
      since('all is there');
      await from.quit();
      await to.until('a guest that runs', async () => ((await to.status()) === 'running' ? true : undefined), LIMIT);
      guest = to;
      const { enabled } = (await to.qmp('query-kvm')) as { enabled: boolean };
      expect(enabled === (accel === 'kvm'), `KVM is ${enabled ? 'on' : 'off'}`);
      const out = await to.command(`${THREE_MORE}; grep -c ^processor /proc/cpuinfo`, LIMIT);
      expect(out.includes('RIGHT') && /^2\r?$/m.test(out), out);
      const after = secondsOf(await to.command('cat /proc/uptime', LIMIT));
      expect(after >= before && after < before + LIMIT / 1000, `the guest's clock went from ${before} to ${after}`);
    });
    if (!went) break;
  }
}
for (const e of started) await e.quit();
await rm(folder, { recursive: true });
process.exit(0);
