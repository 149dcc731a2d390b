import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestAgent } from './agent.ts';

const host = {
  base64: (bytes: Uint8Array) => Buffer.from(bytes).toString('base64'),
  fromBase64: (text: string) => Buffer.from(text, 'base64'),
  sleep: (ms: number) => sleep(ms, undefined, { ref: false }),
};
type Command = { execute: string; arguments: Record<string, unknown> };

/** An agent that a test plays: `answer` says what comes back for each command. */
function played(answer: (c: Command, say: (text: string) => void) => unknown): { agent: GuestAgent; asked: Command[] } {
  const agent = new GuestAgent(host);
  const asked: Command[] = [];
  const say = (text: string): void => void agent.backend.write(Buffer.from(text, 'latin1'));
  agent.backend.connect({
    receive(bytes) {
      const command = JSON.parse(
        Buffer.from(bytes)
          .toString()
          .replace(/^[^{]*/, ''),
      ) as Command;
      asked.push(command);
      const result = command.execute.startsWith('guest-sync') ? { return: command.arguments['id'] } : answer(command, say);
      if (result !== undefined) queueMicrotask(() => say(`${JSON.stringify(result)}\n`));
    },
    opened: () => {},
  });
  return { agent, asked };
}
const done = (fields: object): object => ({ return: { exited: true, ...fields } });
const status = (fields: object) => (c: Command) => (c.execute === 'guest-exec' ? { return: { pid: 7 } } : done(fields));

test('a script is run once the agent has its port open and answers, and its outputs and code come back', async () => {
  const fields = { exitcode: 3, 'out-data': host.base64(Buffer.from('grün\n')), 'err-data': host.base64(Buffer.from('red')) };
  const { agent, asked } = played(status(fields));
  const result = agent.run('echo', { input: Buffer.from('in') });
  assert.equal(agent.busy, true);
  await sleep(10);
  assert.equal(asked.length, 0);
  agent.backend.guestOpened!(true);
  assert.deepEqual(await result, { code: 3, stdout: 'grün\n', stderr: 'red' });
  assert.equal(agent.busy, false);
  assert.equal(asked.at(1)?.arguments['input-data'], host.base64(Buffer.from('in')));
});

test('a signal is a code above 128, and what is of another type is not believed', async () => {
  const killed = played(status({ signal: 9 }));
  killed.agent.backend.guestOpened!(true);
  assert.deepEqual(await killed.agent.run('x'), { code: 137, stdout: '', stderr: '' });
  const strange = played((c) => (c.execute === 'guest-exec' ? { return: 'seven' } : undefined));
  strange.agent.backend.guestOpened!(true);
  await assert.rejects(strange.agent.run('x'), /gave no process/);
  const cut = played(status({ exitcode: 0, 'out-truncated': true }));
  cut.agent.backend.guestOpened!(true);
  await assert.rejects(cut.agent.run('x'), /has cut it/);
});

test('what an agent refuses is told, and the next script runs', async () => {
  let first = true;
  const { agent } = played((c) => {
    if (!first) return status({ exitcode: 0 })(c);
    first = false;
    return { error: { class: 'CommandNotFound', desc: 'Command guest-exec has been disabled' } };
  });
  agent.backend.guestOpened!(true);
  await assert.rejects(agent.run('x'), /refuses guest-exec \(Command guest-exec has been disabled\)/);
  assert.equal((await agent.run('x')).code, 0);
});

test('a script that is late is ended, and the call rejects', async () => {
  let killed = false;
  const { agent, asked } = played((c) => {
    if (c.execute === 'guest-exec') {
      killed ||= String((c.arguments['arg'] as string[])[3]).startsWith('kill');
      return { return: { pid: 7 } };
    }
    return { return: { exited: killed, signal: 9 } };
  });
  agent.backend.guestOpened!(true);
  await assert.rejects(agent.run('sleep 100', { timeout: 30 }), /within 30 ms/);
  assert.match(JSON.stringify(asked.filter((c) => c.execute === 'guest-exec').at(-1)), /kill -KILL -7/);
});

test('a port that is closed, a reset and the end of the machine end what runs', async () => {
  const { agent } = played((c) => (c.execute === 'guest-exec' ? undefined : done({})));
  agent.backend.guestOpened!(true);
  const first = agent.run('x');
  await sleep(5);
  agent.restarted();
  await assert.rejects(first, /agent has ended/);
  const second = agent.run('x');
  agent.backend.guestOpened!(true);
  await sleep(5);
  agent.end();
  await assert.rejects(second, /machine has ended/);
  await assert.rejects(agent.run('x'), /machine has ended/);
});

test('lines without an end, of another shape and answers of before are passed over', async () => {
  const { agent } = played((c, say) => {
    for (const line of ['null', '[1]', '{"return":', 'x', '']) if (c.execute === 'guest-exec') say(`${line}\xff`);
    return status({ exitcode: 0 })(c);
  });
  void agent.backend.write(Buffer.from('{"return": 1}\nrubbish'));
  agent.backend.guestOpened!(true);
  void agent.backend.write(Buffer.from('{"return": 99}\n{"return": {}}\n'));
  assert.equal((await agent.run('x')).code, 0);
  const flood = played((c, say) => {
    if (c.execute !== 'guest-exec') return done({});
    for (let n = 0; n < 50; n++) say('x'.repeat(1 << 20));
    say('\n');
    return undefined;
  });
  flood.agent.backend.guestOpened!(true);
  await assert.rejects(flood.agent.run('x'), /longer than/);
});

/** Debian's qemu-guest-agent at a socket. */
async function realAgent(folder: string): Promise<{ agent: GuestAgent; child: ChildProcess; socket: Socket }> {
  const path = join(folder, 'ga');
  const child = spawn('qemu-ga', ['-m', 'unix-listen', '-p', path, '-t', folder], { stdio: 'ignore' });
  const agent = new GuestAgent(host);
  for (let tries = 0; ; tries++) {
    const socket = createConnection(path);
    const error = await new Promise((resolve) => {
      socket.once('connect', () => resolve(undefined));
      socket.once('error', resolve);
    });
    if (error === undefined) {
      agent.backend.connect({ receive: (bytes) => void socket.write(bytes), opened: () => {} });
      socket.on('data', (bytes: Buffer) => void agent.backend.write(bytes));
      agent.backend.guestOpened!(true);
      return { agent, child, socket };
    }
    if (tries > 200 || child.exitCode !== null) throw new Error(`qemu-ga does not listen: ${error}`);
    await sleep(50);
  }
}
const there = ((): boolean => {
  try {
    execFileSync('sh', ['-c', 'command -v qemu-ga && command -v setsid'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

test('with a real qemu-guest-agent', {
  skip: there ? false : 'qemu-ga (qemu-guest-agent) is not installed',
  timeout: 60_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-agent-'));
  const { agent, child, socket } = await realAgent(folder);
  try {
    assert.deepEqual(await agent.run('echo out; echo err >&2; exit 5'), { code: 5, stdout: 'out\n', stderr: 'err\n' });
    assert.equal((await agent.run('cat | wc -c', { input: new Uint8Array(1 << 20) })).stdout.trim(), String(1 << 20));
    assert.equal((await agent.run('head -c 3000000 /dev/zero | tr "\\0" "ü" | head -c 2000000')).stdout.length, 2_000_000);
    const mark = `${process.pid}98`;
    await assert.rejects(agent.run(`sleep ${mark} & sleep ${mark}`, { timeout: 200 }), /within 200 ms/);
    assert.equal((await agent.run(`pgrep -fx 'sleep ${mark}' | wc -l`)).stdout.trim(), '0', 'nothing of it is left');
    assert.equal((await agent.run('kill -TERM $$')).code, 143);
  } finally {
    child.kill('SIGKILL');
    socket.destroy();
    rmSync(folder, { recursive: true, force: true });
  }
});
