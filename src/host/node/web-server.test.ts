import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Push } from '../../web/api.ts';
import { connectDaemon } from './daemon-main.ts';
import { startWeb, type WebServer } from './web-server.ts';

const limits = { timeout: 60_000 };
const directory = mkdtempSync(join(tmpdir(), 'web-'));
const socket = join(directory, 'sock');
let daemon: ChildProcess;
let web: WebServer;
let cookie = '';

before(async () => {
  const program = join(import.meta.dirname, '../../../bin/nonrootd.ts');
  const args = [program, '--socket', socket, '--state', join(directory, 'state'), '--foreground'];
  daemon = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  await new Promise<void>((resolve, reject) => {
    daemon.stderr!.on('data', (bytes: Buffer) => {
      said += bytes.toString();
      if (said.includes(' serving at ')) resolve();
    });
    daemon.once('exit', () => reject(new Error(`The daemon does not serve: ${said}`)));
  });
  const uri = `qemu+unix:///system?socket=${socket}`;
  web = await startWeb({ host: '127.0.0.1', port: 0, connect: () => connectDaemon(uri), daemonHost: '127.0.0.1' });
});
after(async () => {
  await web?.close();
  daemon?.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}
function ask(method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const out = request({ host: '127.0.0.1', port: web.port, method, path, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }));
      response.on('error', reject);
    });
    out.on('error', reject);
    out.end(body);
  });
}
const own = (): Record<string, string> => ({
  cookie,
  origin: `http://127.0.0.1:${web.port}`,
  'content-type': 'application/json',
});
const post = (name: string, args: unknown): Promise<Reply> => ask('POST', `/api/${name}`, own(), JSON.stringify(args));
async function answer<T>(name: string, args: unknown): Promise<T> {
  const { status, body } = await post(name, args);
  assert.equal(status, 200, body);
  return JSON.parse(body) as T;
}

test('without the token there is no answer; with it comes a cookie, and the address loses it', limits, async () => {
  for (const path of ['/', '/web/api.ts', '/?token=', '/?token=wrong', '/nonexistent']) {
    const reply = await ask('GET', path);
    assert.equal(reply.status, 403, path);
    assert.doesNotMatch(reply.body, /<html|guest/i);
  }
  assert.equal((await ask('POST', '/api/host', { ...own(), cookie: `nonroot-${web.port}=wrong` }, '{}')).status, 403);
  const reply = await ask('GET', new URL(web.url).pathname + new URL(web.url).search);
  assert.equal(reply.status, 303);
  assert.equal(reply.headers['location'], '/');
  const set = String(reply.headers['set-cookie']);
  assert.match(set, /HttpOnly; SameSite=Strict/);
  cookie = set.split(';')[0]!;
  const page = await ask('GET', '/', { cookie });
  assert.equal(page.status, 200);
  assert.match(String(page.headers['content-security-policy']), /default-src 'none'; script-src 'self' 'sha256-/);
});

test('only the files of the list are served, TypeScript without its types', limits, async () => {
  const main = await ask('GET', '/web/page/main.ts', { cookie });
  assert.equal(main.status, 200);
  assert.match(String(main.headers['content-type']), /^text\/javascript/);
  assert.doesNotMatch(main.body, /import type/);
  for (const path of [
    '/lib/xterm/lib/xterm.mjs',
    '/lib/fit/lib/addon-fit.mjs',
    '/lib/novnc/core/rfb.js',
    '/lib/xterm/css/xterm.css',
  ])
    assert.equal((await ask('GET', path, { cookie })).status, 200, path);
  for (const path of [
    '/package.json',
    '/web/../package.json',
    '/web/%2e%2e/%2e%2e/package.json',
    '/lib/novnc/core/../package.json',
    '//etc/passwd',
    '/web/page/../../cli/web.ts',
    '/constructor',
  ])
    assert.equal((await ask('GET', path, { cookie })).status, 404, path);
});

test('other pages, other hosts and other methods are refused', limits, async () => {
  assert.equal((await ask('GET', '/', { cookie, host: `evil.example:${web.port}` })).status, 421);
  assert.equal((await ask('GET', '/', { cookie, host: '127.0.0.1:1' })).status, 421);
  assert.equal((await ask('GET', '/', { cookie, origin: 'http://evil.example' })).status, 403);
  for (const origin of ['http://evil.example', 'null', `https://127.0.0.1:${web.port}`, ''])
    assert.equal((await ask('POST', '/api/host', { ...own(), origin }, '{}')).status, 403, origin);
  assert.equal((await ask('POST', '/api/host', { cookie, 'content-type': 'application/json' }, '{}')).status, 403, 'no origin');
  assert.equal((await ask('POST', '/api/host', { ...own(), 'content-type': 'text/plain' }, '{}')).status, 415);
  assert.equal((await ask('DELETE', '/', { cookie })).status, 405);
});

test('hostile bodies and requests are refused, and the server goes on', limits, async () => {
  assert.equal((await ask('POST', '/api/host', own(), '{')).status, 400);
  assert.equal((await post('constructor', {})).status, 404);
  assert.match((await post('act', {})).body, /uuid is missing/);
  assert.match((await post('act', { uuid: 1, action: 'start' })).body, /uuid is a number/);
  assert.match((await post('act', { uuid: 'x', action: 'toString' })).body, /accepted are start/);
  assert.match((await post('act', { uuid: '../../x', action: 'start' })).body, /its uuid is not one/);
  assert.match((await post('host', { more: 1 })).body, /found field/);
  assert.match((await post('host', [])).body, /no object/);
  const long = await post('define', { xml: 'x'.repeat(2 << 20) }).catch(() => undefined);
  assert.ok(long === undefined || long.status === 413);
  for (const bytes of ['\0'.repeat(100), 'GET / HTTP/1.1\r\n', `GET /${'a'.repeat(1 << 17)} HTTP/1.1\r\n\r\n`]) {
    const raw = connect(web.port, '127.0.0.1');
    raw.on('error', () => {});
    raw.end(bytes);
    await new Promise((resolve) => raw.once('close', resolve).resume());
  }
  await answer('host', {});
});

interface Opened {
  readonly open: boolean;
  readonly messages: string[];
  readonly socket: WebSocket;
}
function openSocket(path: string, headers: Record<string, string>): Promise<Opened> {
  // Node's own WebSocket takes headers; the types are a browser's.
  const Made = WebSocket as unknown as new (url: string, options: { readonly headers: Record<string, string> }) => WebSocket;
  const made = new Made(`ws://127.0.0.1:${web.port}${path}`, { headers });
  const messages: string[] = [];
  made.addEventListener('message', ({ data }) => messages.push(String(data)));
  return new Promise((resolve) => {
    made.addEventListener('open', () => resolve({ open: true, messages, socket: made }));
    made.addEventListener('error', () => resolve({ open: false, messages, socket: made }));
  });
}

test('a WebSocket of another page, or without the token, is refused', limits, async () => {
  const origin = own()['origin']!;
  const refused: Record<string, string>[] = [{ origin }, { cookie }, { cookie, origin: 'http://evil.example' }];
  for (const headers of refused) assert.equal((await openSocket('/ws/events', headers)).open, false);
  for (const path of ['/ws/nothing', '/ws/display?uuid=x', '/ws/display'])
    assert.equal((await openSocket(path, { cookie, origin })).open, false, path);
});

test('a guest is made, changed and deleted; samples and events tell of it', limits, async () => {
  const { open, messages, socket: events } = await openSocket('/ws/events', { cookie, origin: own()['origin']! });
  assert.ok(open);
  const pushed = async (which: (push: Push) => boolean): Promise<Push> => {
    for (;;) {
      const found = messages.map((text) => JSON.parse(text) as Push).find(which);
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await pushed((push) => push.kind === 'guests' && push.guests.length === 0);
  const bare = { name: 'a<b&', memory: '64M', cpus: 2, network: 'user', machine: 'pc' };
  const { uuid } = await answer<{ uuid: string }>('create', { ...bare, display: true });
  await pushed((push) => push.kind === 'event' && push.text === 'defined');
  const sample = await pushed((push) => push.kind === 'guests' && push.guests.length === 1);
  const guest = sample.kind === 'guests' ? sample.guests[0] : undefined;
  assert.deepEqual([guest!.name, guest!.uuid, guest!.state, guest!.cpus, guest!.memory], ['a<b&', uuid, 5, 2, 65_536]);

  const detail = await answer<{ config: string; display: string; persistent: boolean }>('guest', { uuid });
  assert.equal(detail.persistent, true);
  assert.equal(detail.display, 'vnc');
  assert.match((await post('define', { xml: '<domain' })).body, /error/);
  await answer('define', { xml: detail.config.replace(/<vcpu[\s\S]*?<\/vcpu>/, '<vcpu>3</vcpu>') });
  await pushed((push) => push.kind === 'guests' && push.guests[0]?.cpus === 3);

  await answer('snapshotCreate', { uuid, name: 'one' }).catch(() => undefined);
  assert.ok(Array.isArray(await answer('snapshots', { uuid })));
  assert.match((await post('create', { ...bare, cpus: 1.5 })).body, /Cannot use 1.5 CPUs/);
  assert.match((await post('act', { uuid, action: 'pause' })).body, /not running/);
  await answer('act', { uuid, action: 'remove' });
  await pushed((push) => push.kind === 'event' && push.text === 'deleted');
  events.close();
});
