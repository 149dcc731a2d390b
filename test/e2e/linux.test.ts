// Linux guests from the command line: commands and their codes, the console, several vCPUs, 32 bits, and every way to end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missing, program, programPath } from './program.ts';
import { dialogue, noPty } from './pty.ts';

/** Bound of one guest, in seconds, on a machine with other work. */
const LIMIT = 60;
const timeout = ['--timeout', String(LIMIT)];
const skip = await missing('debian-cloud');
const skip32 = await missing('debian-i386');

/** Runs a command in a guest. */
const exec = (command: string, more: readonly string[] = [], input?: Uint8Array) =>
  program('nonroot', ['run', '--exec', command, ...timeout, ...more], { seconds: LIMIT + 10, input });

test('a command gets its input and gives its output, byte by byte, and its exit code', { skip }, async () => {
  const input = Uint8Array.from({ length: 20_000 }, (_, i) => (i * i + (i >> 8)) & 0xff);
  const r = await exec('cat; printf "to the error output\\n" >&2; exit 42', [], input);
  assert.equal(r.code, 42, r.text);
  assert.ok(r.stdout.equals(input), r.text);
  assert.equal(r.stderr, 'to the error output\n');
});

test('a command that does not exist ends with 127 and a line on standard error only', { skip }, async () => {
  const r = await exec('no-such-command');
  assert.equal(r.code, 127, r.text);
  assert.equal(r.stdout.length, 0, r.text);
  assert.match(r.stderr, /^[^\n]*no-such-command: not found\n$/);
});

test('two vCPUs are there and both work', { skip }, async () => {
  const command = `nproc
    count() { i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; }
    grep ^cpu[01] /proc/stat
    count & count & wait
    grep ^cpu[01] /proc/stat`;
  const r = await exec(command, ['--cpus', '2']);
  assert.equal(r.code, 0, r.text);
  const [count, ...lines] = r.stdout.toString().trim().split('\n');
  assert.equal(count, '2', r.text);
  const user = lines.map((line) => Number(line.split(' ')[1]));
  assert.equal(user.length, 4, r.text);
  for (const cpu of [0, 1]) assert.ok(user[cpu + 2]! > user[cpu]!, `vCPU ${cpu} ran no program\n${r.text}`);
});

test('a machine with two vCPUs starts again when its guest does', { skip }, async () => {
  const r = await program('nonroot', ['run', '--cpus', '2', ...timeout], { seconds: LIMIT + 10, input: 'reboot\n' });
  assert.equal(r.code, 0, r.text);
  assert.equal(r.stdout.toString().split('with busybox').length, 3, r.text);
});

test('a 32-bit Linux runs a command', { skip: skip32 }, async () => {
  const r = await program('nonroot', ['run', 'debian-i386', '--exec', 'uname -m; exit 1', ...timeout], { seconds: LIMIT + 10 });
  assert.equal(r.code, 1, r.text);
  assert.equal(r.stdout.toString(), 'i686\n', r.text);
});

test("a Linux that is offered Hyper-V's interface takes it, and its reference time", { skip }, async () => {
  const command = `cat /sys/devices/system/clocksource/clocksource0/current_clocksource
    dmesg | grep -o 'Hypervisor detected: .*'
    a=$(date +%s); sleep 2; echo $(($(date +%s) - a))`;
  const offered = 'max,kvm=off,hv-relaxed,hv-vapic,hv-spinlocks=0x1fff,hv-time,hv-vpindex,hv-frequencies';
  const r = await exec(command, ['--cpus', '2', '--accel', 'dbt', '--cpu', offered]);
  assert.match(r.stdout.toString(), /^hyperv_clocksource_tsc_page\nHypervisor detected: Microsoft Hyper-V\n[2-9]\n$/, r.text);
  // KVM's own interface comes behind it, and guests prefer it, as with QEMU.
  const both = await exec(command, ['--accel', 'dbt', '--cpu', offered.replace('kvm=off,', '')]);
  assert.match(both.stdout.toString(), /\nHypervisor detected: KVM\n/, both.text);
});

test('a guest of 6 GiB uses all of it', { skip }, async () => {
  // The kernel takes what is asked of it from above 4 GiB first: the last GiB is where host addresses have more than 32 bits.
  const command = `grep MemTotal /proc/meminfo
    mount -t tmpfs -o size=2g large /mnt
    head -c 20000000 /dev/urandom >/mnt/0
    for i in 1 2 3 4 5 6 7 8 9 10; do cp /mnt/0 /mnt/$i; done
    md5sum /mnt/* | cut -c1-32 | sort -u | wc -l`;
  const r = await exec(command, ['-m', '6G', '--cpus', '2']);
  assert.equal(r.code, 0, r.text);
  const [total, sums] = r.stdout.toString().trim().split('\n');
  assert.ok(Number(/\d+/.exec(total!)![0]) > 5.7 * 2 ** 20, r.text);
  assert.equal(sums, '1', r.text);
});

test('a Linux guest uses five levels of pages where the processor has them', { skip }, async () => {
  const r = await exec('grep -o -m1 la57 /proc/cpuinfo; grep VmallocTotal /proc/meminfo', ['--cpu', 'max,+la57']);
  assert.equal(r.code, 0, r.text);
  assert.match(r.stdout.toString(), /^la57\nVmallocTotal: +13743895347199 kB\n$/, r.text);
});

test('a kernel panic ends with exit code 1 and its reason', { skip }, async () => {
  const args = ['run', '--append', 'rdinit=/nonexistent', ...timeout];
  const r = await program('nonroot', args, { seconds: LIMIT + 10 });
  assert.equal(r.code, 1, r.text);
  assert.match(r.stderr, /^nonroot: the guest's kernel panicked: \S/m);
});

test('a shell takes its commands from a pipe, and poweroff ends with exit code 0', { skip }, async () => {
  const input = 'echo $((6 * 7)) is it\npoweroff\necho never\n';
  const r = await program('nonroot', ['run', ...timeout], { seconds: LIMIT + 10, input });
  assert.equal(r.code, 0, r.text);
  assert.match(r.stdout.toString(), /^42 is it\r?$/m);
});

test('a terminal becomes the console, and is given back after Ctrl-A x', { skip: skip || noPty() }, async () => {
  const d = await dialogue(
    [programPath('nonroot'), 'run', ...timeout],
    [
      ['# ', 'echo $((6 * 7)) is it; stty size\r'],
      ['42 is it', ''],
      ['33 99', '\x01c'],
      ['(nonroot) ', 'info status\r'],
      ['VM status: running', '\x01x'],
    ],
    LIMIT,
  );
  assert.deepEqual({ ...d, screen: '' }, { code: 0, restored: true, screen: '', missed: null }, d.screen);
});
