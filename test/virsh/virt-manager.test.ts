// The real virt-manager on a display of its own: it connects, lists, shows a guest's screen pixel by pixel and types into a text console.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client, idleGuest, linuxFiles, linuxGuest, state, until, uuidOf } from './client.ts';
import { missing, ourEmulator, TestDaemon } from './daemon-process.ts';

const skip = missing('virt-manager', 'virsh', 'xdotool', 'dbus-run-session') || absent('Xvfb') || absent('import');

/** For programs that know no --version. */
function absent(program: string): string | false {
  try {
    execFileSync('which', [program], { stdio: 'ignore' });
    return false;
  } catch {
    return `${program} is not installed`;
  }
}

interface Picture {
  readonly width: number;
  readonly height: number;
  /** Three bytes a pixel, in rows from the top. */
  readonly pixels: Buffer;
}

function pictureOf(ppm: Buffer): Picture {
  const head = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(ppm.toString('latin1', 0, 64))!;
  return { width: Number(head[1]), height: Number(head[2]), pixels: ppm.subarray(head[0].length) };
}

/** The largest share of equal pixels, 0 to 1, of `part` anywhere in `whole` where its brightest row is equal. */
function shareOf(part: Picture, whole: Picture): number {
  const row = (p: Picture, y: number, x = 0, n = p.width) => p.pixels.subarray((y * p.width + x) * 3, (y * p.width + x + n) * 3);
  const sum = (y: number) => row(part, y).reduce((a, b) => a + b, 0);
  const brightest = [...Array(part.height).keys()].reduce((a, b) => (sum(b) > sum(a) ? b : a));
  if (sum(brightest) === 0) return 0;
  const wanted = row(part, brightest);
  let best = 0;
  for (let at = whole.pixels.indexOf(wanted); at >= 0; at = whole.pixels.indexOf(wanted, at + 1)) {
    const x = (at / 3) % whole.width;
    const y = Math.floor(at / 3 / whole.width) - brightest;
    if (at % 3 !== 0 || y < 0 || y + part.height > whole.height || x + part.width > whole.width) continue;
    let same = 0;
    for (let line = 0; line < part.height; line++) {
      const [a, b] = [row(part, line), row(whole, y + line, x, part.width)];
      for (let i = 0; i < a.length; i += 3) if (a[i] === b[i] && a[i + 1] === b[i + 1] && a[i + 2] === b[i + 2]) same++;
    }
    best = Math.max(best, same / (part.width * part.height));
  }
  return best;
}

describe('virt-manager', { skip, timeout: 300_000 }, () => {
  const daemon = new TestDaemon();
  const groups: number[] = [];
  let client: Client;
  let display = '';
  /** Starts a program at the head of a process group, which ends with the test; what it says is collected. */
  const begin = (program: string, args: readonly string[]): { said: string; readonly pid: number } => {
    const env = { ...process.env, DISPLAY: display, HOME: join(daemon.directory, 'home'), LC_ALL: 'C.UTF-8', NO_AT_BRIDGE: '1' };
    const child = spawn(program, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'], env });
    const out = { said: '', pid: child.pid! };
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (out.said += bytes.toString()));
    groups.push(child.pid!);
    return out;
  };
  const end = (group: number): void => {
    try {
      process.kill(-group, 'SIGKILL');
    } catch {}
  };
  const x = (program: string, ...args: readonly string[]): Buffer =>
    execFileSync(program, args, {
      env: { ...process.env, DISPLAY: display },
      maxBuffer: 64 << 20,
      timeout: 20_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  /** virt-manager with a guest's console open. The short form of the URI: it takes qemu+unix: for a host elsewhere. */
  const open = (name: string) =>
    begin('dbus-run-session', [
      '--',
      'virt-manager',
      '--no-fork',
      '--debug',
      '-c',
      `qemu:///system?socket=${daemon.socket}`,
      '--show-domain-console',
      name,
    ]);

  before(async () => {
    await daemon.start();
    client = await Client.connect(daemon.uri);
    mkdirSync(join(daemon.directory, 'home'));
    const server = begin('Xvfb', ['-displayfd', '1', '-screen', '0', '1280x900x24']);
    await until(
      () => `Xvfb serves: ${server.said}`,
      () => /^\d+\n/m.test(server.said),
    );
    display = `:${/^(\d+)\n/m.exec(server.said)![1]}`;
  });
  after(async () => {
    for (const group of groups) end(group);
    client?.close();
    await daemon.close();
  });

  test("shows a guest's screen", async () => {
    const devices = `<graphics type='vnc' port='-1'/><video><model type='vga'/></video>`;
    await client.start(await client.define(idleGuest('screen', uuidOf(1), devices, ourEmulator)));
    const manager = open('screen');
    try {
      let best = 0;
      await until(
        () => `The window shows the guest's screen (${best} of it); ${manager.said.slice(-2000)}`,
        async () => {
          await new Promise((resolve) => setTimeout(resolve, 1000));
          const shot = join(daemon.directory, 'screen.png');
          const { code } = await daemon.virsh('screenshot', 'screen', shot);
          if (code !== 0) return false;
          best = shareOf(
            pictureOf(x('convert', shot, '-depth', '8', 'ppm:-')),
            pictureOf(x('import', '-window', 'root', '-depth', '8', 'ppm:-')),
          );
          // A cursor blinks.
          return best > 0.99;
        },
        90_000,
      );
      assert.doesNotMatch(manager.said, /Traceback|libvirtError/);
    } finally {
      end(manager.pid);
      await daemon.virsh('destroy', 'screen');
    }
  });

  test("types into a guest's text console", async (t) => {
    const files = await linuxFiles();
    if (typeof files === 'string') return t.skip(files);
    await client.start(await client.define(linuxGuest('text', uuidOf(2), files, '', ourEmulator)));
    const manager = open('text');
    try {
      await until(
        () => `The guest obeys what is typed; ${manager.said.slice(-2000)}`,
        async () => {
          await new Promise((resolve) => setTimeout(resolve, 2000));
          // The shell's exit powers the machine off.
          x('xdotool', 'mousemove', '500', '400', 'click', '1', 'sleep', '0.3', 'type', '--delay', '40', '\nexit\n');
          return (await client.state('text')) === state.shutoff;
        },
        90_000,
      );
      assert.doesNotMatch(manager.said, /Traceback|libvirtError/);
    } finally {
      end(manager.pid);
      await daemon.virsh('destroy', 'text');
    }
  });
});
