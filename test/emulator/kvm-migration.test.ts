// Live migration between processes on this host's KVM, whatever kind it is, and on the translator: a guest that writes the same number to all pages, over and
// over, must arrive with each page as it was when it was held.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { probeKvm } from '../../src/accel/kvm/probe.ts';
import { kvmHost } from '../../src/host/node/kvm-native.ts';
import { withoutKvm } from '../../src/host/node/kvm-testing.ts';
import { EmulatorProcess } from '../e2e/emulator.ts';
import { multiboot } from '../e2e/program.ts';

const skip = withoutKvm();
const folder = mkdtempSync(join(tmpdir(), 'nonroot-kvm-migration-'));
const processes: EmulatorProcess[] = [];
after(async () => {
  for (const e of processes) await e.quit();
  rmSync(folder, { recursive: true });
});
const [FIRST, BYTES] = [0x40_0000, 0x20_0000];
const kernel = join(folder, 'kernel');
writeFileSync(
  kernel,
  multiboot([
    ...[0xb9, 0, 0, 0, 0], // mov ecx,0
    0x41, // L: inc ecx
    ...[0xbf, 0, 0, 0x40, 0], // mov edi,0x400000
    ...[0x89, 0x0f], // M: mov [edi],ecx
    ...[0x81, 0xc7, 0, 0x10, 0, 0], // add edi,0x1000
    ...[0x81, 0xff, 0, 0, 0x60, 0], // cmp edi,0x600000
    ...[0x72, 0xf0], // jb M
    ...[0xeb, 0xe8], // jmp L
  ]), // biome-ignore format: by instruction
);

/** The numbers of all pages, of a guest that is held. */
async function pages(e: EmulatorProcess): Promise<number[]> {
  const filename = join(folder, 'pages');
  await e.qmp('pmemsave', { val: FIRST, size: BYTES, filename });
  const bytes = readFileSync(filename);
  return Array.from({ length: BYTES / 4096 }, (_, n) => bytes.readUInt32LE(4096 * n));
}

test('a guest that writes all the time moves between KVM and the translator, page by page as it was', { skip, timeout: 300_000 }, async () => {
  // What KVM cannot change, the translator takes as well.
  const { tscKhz, tscControl } = probeKvm(kvmHost(), false);
  const cpu = `max,host-phys-bits=off${tscControl || tscKhz === 0 ? '' : `,tsc-frequency=${tscKhz * 1000}`}`;
  const start = async (accel: string, ...more: string[]): Promise<EmulatorProcess> => {
    const args = ['-M', 'q35', '-m', '32', '-cpu', cpu, '-nodefaults', '-display', 'none', '-kernel', kernel, '-accel', accel, ...more];
    const e = await EmulatorProcess.start(folder, `p${processes.length}`, args);
    processes.push(e);
    return e;
  };
  let from = await start('kvm');
  let before = 0;
  for (const accel of ['kvm', 'tcg', 'kvm']) {
    await from.until('three rounds', async () => (Number((await from.hmp('xp /1wd 0x400000')).split(' ').at(-1)) > before + 3 ? true : undefined));
    const to = await start(accel, '-S', '-incoming', 'defer');
    const uri = `unix:${join(folder, `m${processes.length}`)}`;
    for (const e of [from, to]) await e.qmp('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    await to.qmp('migrate-incoming', { uri });
    // Not to be had: there is another pass, of what was written during the first. That will do.
    await from.qmp('migrate-set-parameters', { 'downtime-limit': 0 });
    await from.qmp('migrate', { uri });
    const second = (): true | undefined => from.events.some(({ data }) => Number(data?.['pass']) >= 2) || undefined;
    await from.until(`a second pass (${to.said})`, second);
    await from.qmp('migrate-set-parameters', { 'downtime-limit': 10_000 });
    for (const e of [from, to]) await e.event('MIGRATION', 'completed');
    const [there, here] = [await pages(from), await pages(to)];
    assert.deepEqual(here, there, `on the way to ${accel}`);
    // So far this round is, and the one before.
    const [round = 0] = here;
    assert.ok(round > before + 3, `round ${round}`);
    const left = here.indexOf(round - 1);
    assert.deepEqual(new Set(here.slice(0, left < 0 ? undefined : left)), new Set([round]));
    if (left >= 0) assert.deepEqual(new Set(here.slice(left)), new Set([round - 1]));
    before = round;
    await from.quit();
    from = to;
    from.events.length = 0;
    await from.qmp('cont');
  }
  await from.until('three rounds', async () => (Number((await from.hmp('xp /1wd 0x400000')).split(' ').at(-1)) > before + 3 ? true : undefined));
}); // biome-ignore format: one call
