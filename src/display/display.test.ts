import assert from 'node:assert/strict';
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { test } from 'node:test';
import { deflateSync, inflateSync } from 'node:zlib';
import { parseUsers, type ScramDerivation, scramLine } from '../rpc/scram.ts';
import { ScramClient } from '../rpc/scram-testing.ts';
import { png, ppm } from './image.ts';
import { type InputDevice, type InputEvent, InputRouter, sendKeys, typed } from './input.ts';
import { keyNamed, keyNumbered, keyOfKeysym, keys } from './keys.ts';
import type { RfbSession } from './rfb-session.ts';
import { Screen } from './screen.ts';
import { Damage, Surface } from './surface.ts';
import { Vnc, type VncOptions } from './vnc.ts';

test('keys have one number, usage and name each, and keysyms find them', () => {
  for (const field of ['name', 'number'] as const) {
    const seen = keys.map((k) => k[field]).filter((v) => v !== 0);
    assert.equal(new Set(seen).size, seen.length, field);
  }
  assert.deepEqual([keyNamed('a')?.usage, keyNumbered(0x1e)?.name, keyOfKeysym(0x41)?.name], [4, 'a', 'a']);
  assert.deepEqual([keyNamed('ret')?.event, keyNumbered(0xc8)?.name, keyNamed('kp_enter')?.number], [28, 'up', 0x9c]);
  assert.deepEqual(
    typed('aB\n', keyOfKeysym).map((k) => k.map((x) => x.name)),
    [['a'], ['shift', 'b'], ['ret']],
  );
});

test('input goes to the device that was plugged in last and listens', async () => {
  const router = new InputRouter();
  const log: string[] = [];
  const device = (name: string, kinds: InputDevice['kinds'], listens = true): InputDevice => ({
    name,
    kinds,
    listening: () => listens,
    take: (events: readonly InputEvent[]) => log.push(`${name} ${events.length}`),
  });
  router.add(device('mouse', ['relative']));
  router.add(device('ps2', ['key']));
  const remove = router.add(device('tablet', ['absolute']));
  router.add(device('usb', ['key'], false));
  assert.equal(router.absolute, true);
  router.send([
    { kind: 'absolute', axis: 'x', value: 1 },
    { kind: 'button', button: 'left', down: true },
    { kind: 'key', key: keyNamed('a')!, down: true },
  ]);
  assert.deepEqual(log.splice(0), ['tablet 2', 'ps2 1']);
  remove();
  assert.equal(router.absolute, false);
  router.send([{ kind: 'button', button: 'left', down: false }]);
  assert.deepEqual(log.splice(0), ['mouse 1']);
  await sendKeys(router, [keyNamed('ctrl')!, keyNamed('c')!], 1, async () => {});
  assert.equal(log.length, 4);
});

test('who sits before a display has its devices first, then those of nobody; others have none of them', () => {
  const router = new InputRouter();
  const log: string[] = [];
  const device = (name: string, kinds: InputDevice['kinds'], seat?: InputDevice['seat']): InputDevice => ({
    ...{ name, kinds, seat, listening: () => true },
    take: () => log.push(name),
  });
  router.add(device('mouse', ['relative']));
  router.add(device('keyboard', ['key']));
  router.add(device('tablet', ['absolute'], { display: 'gpu', head: 1 }));
  const own = router.at({ display: 'gpu', head: 1 });
  const other = router.at({ display: 'gpu', head: 0 });
  const click: InputEvent = { kind: 'button', button: 'left', down: true };
  for (const sink of [own, other, router]) sink.send([click]);
  own.key(keyNamed('a')!, true);
  assert.deepEqual(log, ['tablet', 'mouse', 'mouse', 'keyboard']);
  assert.deepEqual([own.absolute, other.absolute, router.absolute], [true, false, false]);
});

test('a surface tells of the pixels that changed, and damage gives each tile once', () => {
  const surface = new Surface();
  const seen: number[][] = [];
  surface.watch({ resized: (w, h) => seen.push([w, h]), changed: (...a) => seen.push(a) });
  surface.resize(100, 50);
  const line = new Uint32Array(100);
  surface.line(3, line);
  line[40] = line[42] = 7;
  surface.line(3, line);
  assert.deepEqual(seen, [
    [100, 50],
    [40, 3, 3, 1],
  ]);
  const damage = new Damage(100, 50);
  const all = { x: 0, y: 0, width: 100, height: 50 };
  assert.deepEqual(damage.take(all), [all]);
  assert.deepEqual(damage.take(all), []);
  damage.add(40, 3, 3, 1);
  damage.add(-5, -5, 1000, 6);
  assert.deepEqual(damage.take({ x: 32, y: 0, width: 16, height: 16 }), [{ x: 32, y: 0, width: 16, height: 16 }]);
  assert.equal(damage.any, true);
  assert.equal(
    damage.take(all).reduce((n, r) => n + r.width * r.height, 0),
    84 * 16,
  );
});

test('pictures become PNG and PPM', async () => {
  const picture = { width: 2, height: 1, pixels: Uint32Array.of(0x123456, 0xffffff) };
  const file = Buffer.from(await png(picture, (b) => deflateSync(b)));
  assert.equal(file.subarray(1, 4).toString(), 'PNG');
  const data = file.indexOf('IDAT');
  const raw = inflateSync(file.subarray(data + 4, data + 4 + file.readUInt32BE(data - 4)));
  assert.deepEqual([...raw], [0, 0x12, 0x34, 0x56, 255, 255, 255]);
  assert.equal(Buffer.from(ppm(picture)).toString('latin1'), 'P6\n2 1\n255\n\x12\x34\x56\xff\xff\xff');
});

/** A server without sockets, and what a client of it is sent. */
function server(options: Partial<VncOptions> = {}) {
  let now = 0;
  const due: { at: number; f: () => void }[] = [];
  const after = (ms: number, f: () => void) => {
    const timer = { at: now + ms, f };
    due.push(timer);
    return () => void due.splice(due.indexOf(timer), due.includes(timer) ? 1 : 0);
  };
  const screen = new Screen({ name: 'test', draw: () => {} }, { now: () => now, after });
  const events: string[] = [];
  const vnc = new Vnc({
    id: 'default',
    name: 'test',
    screen,
    input: new InputRouter(),
    password: false,
    share: 'allow-exclusive',
    des: (_, blocks) => blocks.map((b) => b ^ 0x55),
    random: (n) => new Uint8Array(n).fill(3),
    time: () => now / 1000,
    after,
    event: (name) => events.push(name),
    report: () => {},
    ...options,
  });
  const run = async (ms: number) => {
    now += ms;
    for (const t of due.filter((d) => d.at <= now)) {
      due.splice(due.indexOf(t), 1);
      t.f();
    }
    for (let i = 0; i < 50; i++) await Promise.resolve();
  };
  const client = (stalls = false) => {
    const sent: number[] = [];
    const state = { closed: false };
    const session = vnc.connect(
      {
        write: (bytes) => {
          sent.push(...bytes);
          return stalls ? new Promise(() => {}) : Promise.resolve();
        },
        close: () => {
          state.closed = true;
        },
      },
      { host: 'a', service: '1', family: 'ipv4', websocket: false },
      { host: 'b', service: '2', family: 'ipv4', websocket: false },
    )!;
    return { session, sent, state };
  };
  return { vnc, screen, events, client, run };
}
const hello = (session: RfbSession, shared = 1): void => {
  session.receive(new TextEncoder().encode('RFB 003.008\n'));
  session.receive(Uint8Array.of(1));
  session.receive(Uint8Array.of(shared));
};
const request = (incremental: number): Uint8Array => Uint8Array.of(3, incremental, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff);

test('a client that asks is sent what changed, once', async () => {
  const { screen, client, run, events } = server();
  screen.surface.resize(32, 16);
  const { session, sent } = client();
  hello(session);
  await run(0);
  assert.deepEqual(events, ['VNC_CONNECTED', 'VNC_INITIALIZED']);
  sent.length = 0;
  session.receive(request(0));
  await run(0);
  assert.equal(sent.length, 4 + 12 + 32 * 16 * 4);
  sent.length = 0;
  session.receive(request(1));
  await run(100);
  assert.equal(sent.length, 0, 'nothing has changed');
  screen.surface.span(20, 5, Uint32Array.of(0xff), 0, 1);
  await run(100);
  assert.equal(sent.length, 4 + 12 + 16 * 16 * 4);
  session.close();
  assert.equal(events.at(-1), 'VNC_DISCONNECTED');
});

/** A fence, and the pseudo-encodings of continuous updates and fences. */
const fenceOf = (flags: number, ...payload: number[]): number[] => [
  248,
  0,
  0,
  0,
  flags >>> 24,
  0,
  0,
  flags & 255,
  payload.length,
  ...payload,
];
const PACED = Uint8Array.of(2, 0, 0, 2, 0xff, 0xff, 0xfe, 0xc8, 0xff, 0xff, 0xfe, 0xc7);

test('a client is sent what changes without asking, as far as it keeps up', async () => {
  const { screen, client, run } = server();
  screen.surface.resize(32, 16);
  const { session, sent } = client();
  const take = async (ms = 100): Promise<number[]> => {
    await run(ms);
    return sent.splice(0);
  };
  let colour = 1;
  const draw = (): void => void screen.surface.span(20, 5, Uint32Array.of(colour++), 0, 1);
  const update = 4 + 12 + 16 * 16 * 4;
  hello(session);
  await take();
  session.receive(PACED);
  assert.deepEqual(await take(), [...fenceOf(0x80000000), 150], 'the server has both');
  session.receive(request(0));
  assert.equal((await take()).length, 4 + 12 + 32 * 16 * 4, 'an update that was asked for has no fence');
  session.receive(Uint8Array.of(150, 1, 0, 0, 0, 0, 0, 32, 0, 16));
  for (let n = 0; n < 4; n++) {
    draw();
    const bytes = await take();
    assert.equal(bytes.length, update + 10);
    assert.deepEqual(bytes.slice(update), fenceOf(0x80000001, 1));
  }
  draw();
  assert.equal((await take()).length, 0, 'four are not answered');
  session.receive(request(1));
  assert.equal((await take()).length, 0, 'requests for changes mean nothing meanwhile');
  session.receive(Uint8Array.from(fenceOf(1, 1)));
  assert.equal((await take()).length, update + 10);
  session.receive(Uint8Array.of(150, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  assert.deepEqual(await take(), [150]);
  for (let n = 0; n < 4; n++) session.receive(Uint8Array.from(fenceOf(1, 1)));
  draw();
  assert.equal((await take()).length, 0);
  session.receive(request(1));
  assert.equal((await take()).length, update);
});

test('a fence is answered behind the update under way, with what the server understands of it', async () => {
  const { screen, client, run } = server();
  screen.surface.resize(32, 16);
  const { session, sent } = client();
  hello(session);
  await run(0);
  sent.length = 0;
  session.receive(request(0));
  session.receive(Uint8Array.from(fenceOf(0x80000007, 7, 8)));
  await run(0);
  const update = 4 + 12 + 32 * 16 * 4;
  assert.deepEqual(sent.slice(update), fenceOf(3, 7, 8));
  // One that is too long is passed over, and the rest is read.
  session.receive(Uint8Array.of(248, 0, 0, 0, 0x80, 0, 0, 1, 65, ...new Uint8Array(65)));
  session.receive(request(0));
  await run(0);
  assert.equal(sent.length, update + 11 + update);
});

test('where pictures may lose something, a client that asks for it gets JPEGs, and what stands still as it is', async () => {
  for (const lossy of [true, false]) {
    const { screen, client, run } = server({
      lossy,
      deflate: () => ({ push: (bytes) => Promise.resolve(bytes), close: () => {} }),
    });
    const { session, sent } = client();
    screen.surface.resize(64, 64);
    const draw = (seed: number): void => {
      for (let y = 0; y < 64; y++)
        screen.surface.span(
          0,
          y,
          Uint32Array.from({ length: 64 }, (_, x) => x * 1024 + y * 4 + seed),
          0,
          64,
        );
    };
    draw(0);
    hello(session);
    // Tight, quality 5.
    session.receive(Uint8Array.of(2, 0, 0, 2, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xe5));
    await run(0);
    const exact = 4 + 12 + 1 + 2 + 64 * 64 * 3;
    const next = async (ms: number): Promise<number[]> => {
      sent.length = 0;
      session.receive(request(1));
      await run(ms);
      return [...sent];
    };
    const first = await next(0);
    const control = first[4 + 12];
    assert.deepEqual([control, first.length < exact / 4], lossy ? [0x90, true] : [0, false]);
    if (!lossy) continue;
    // Each change puts it off.
    await run(300);
    draw(7);
    assert.equal((await next(40))[4 + 12], 0x90);
    sent.length = 0;
    session.receive(request(1));
    await run(300);
    assert.equal(sent.length, 0);
    await run(300);
    assert.deepEqual([sent.length, sent[4 + 12]], [exact, 0]);
    assert.equal((await next(2000)).length, 0);
  }
});

test('clients that can follow a new size are told of it; others keep theirs', async () => {
  const { screen, client, run } = server();
  screen.surface.resize(32, 16);
  const [a, b] = [client(), client()];
  for (const c of [a, b]) hello(c.session);
  a.session.receive(Uint8Array.of(2, 0, 0, 1, ...[0xff, 0xff, 0xfe, 0xcc]));
  await run(0);
  for (const c of [a, b]) c.session.receive(request(0));
  await run(0);
  for (const c of [a, b]) {
    c.sent.length = 0;
    c.session.receive(request(1));
  }
  screen.surface.resize(64, 48);
  await run(100);
  assert.deepEqual(a.sent.slice(4 + 4, 4 + 8), [0, 64, 0, 48]);
  assert.equal(b.sent.length, 4 + 12 + 32 * 16 * 4);
});

test('SASL lets in who knows the password, once, and says who it is', async () => {
  const crypto: ScramDerivation = {
    random: (n) => new Uint8Array(n).fill(7),
    sha256: (bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()),
    hmac: (key, bytes) => new Uint8Array(createHmac('sha256', key).update(bytes).digest()),
    derive: async (password, salt, iterations) => new Uint8Array(pbkdf2Sync(password, salt, iterations, 32, 'sha256')),
  };
  const users = parseUsers(await scramLine(crypto, 'fred', 'secret'));
  const reports: string[] = [];
  let may = true;
  const { vnc, client, run } = server({
    ...{ sasl: { crypto, users: () => users }, report: (line) => reports.push(line) },
    authorized: (by, name) => by === 'sasl' && name === 'fred' && may,
  });
  assert.deepEqual([vnc.auth, vnc.vencrypt], ['sasl', undefined]);
  const counted = (text: string, end = '\0'): Buffer => {
    const bytes = Buffer.from(text + end);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(bytes.length);
    return Buffer.concat([head, bytes]);
  };
  const begin = async () => {
    const c = client();
    await run(0);
    const said = (): Buffer => Buffer.from(c.sent.splice(0));
    c.session.receive(Buffer.from('RFB 003.008\n'));
    c.session.receive(Uint8Array.of(20));
    await run(0);
    assert.deepEqual(said().subarray(12), Buffer.concat([Buffer.of(1, 20), counted('SCRAM-SHA-256', '')]));
    return { ...c, said };
  };
  for (const [word, right, atOnce] of [
    ['secret', true, true],
    ['secret', true, false],
    ['wrong', false, true],
    ['secret', 'but may not', true],
  ] as const) {
    may = right !== 'but may not';
    const { session, said, state } = await begin();
    const talk = new ScramClient(crypto, 'fred', word, 'abc');
    session.receive(Buffer.concat([counted('SCRAM-SHA-256', ''), atOnce ? counted(talk.first) : Buffer.alloc(4)]));
    await run(0);
    if (!atOnce) {
      assert.deepEqual([...said()], [0, 0, 0, 0, 0]);
      session.receive(counted(talk.first));
      await run(0);
    }
    const first = said();
    assert.deepEqual([first.readUInt32BE(0), first.at(-2), first.at(-1)], [first.length - 5, 0, 0]);
    const { message, expected } = await talk.final(first.subarray(4, -2).toString());
    // Cut anywhere.
    for (const byte of counted(message)) session.receive(Uint8Array.of(byte));
    await run(0);
    assert.equal(state.closed, right !== true);
    if (right === 'but may not') {
      const refused = [...counted(expected), 1, 0, 0, 0, 1, ...counted('Authentication failed', '')];
      assert.deepEqual([...said()], refused);
      assert.match(reports.pop() ?? '', /fred is not authorized$/);
    } else if (right) {
      assert.deepEqual(said(), Buffer.concat([counted(expected), Buffer.of(1, 0, 0, 0, 0)]));
      assert.deepEqual(
        vnc.clients().map((c) => c.sasl_username),
        ['fred'],
      );
      session.close();
    } else assert.equal(said().length, 0);
  }
  assert.match(reports.splice(0).join(), /SASL does not know it$/);
  for (const [bytes, line] of [
    [counted('PLAIN', ''), /Cannot use SASL's "PLAIN": accepted is SCRAM-SHA-256$/],
    [Buffer.of(0xff, 0xff, 0xff, 0xff), /4294967295 bytes in one piece, accepted are 100 at most$/],
    [Buffer.concat([counted('SCRAM-SHA-256', ''), counted('hello')]), /what it says is not SCRAM-SHA-256$/],
  ] as const) {
    const { session, state } = await begin();
    session.receive(bytes);
    await run(0);
    assert.ok(state.closed);
    assert.match(reports.splice(0).join(), line);
  }
  const old = client();
  old.session.receive(Buffer.from('RFB 003.003\n'));
  await run(0);
  assert.ok(old.state.closed);
});

test('one connection has one guess at the password', async () => {
  const { vnc, client, run } = server({ password: true });
  vnc.setPassword('secret');
  const { session, sent, state } = client();
  session.receive(new TextEncoder().encode('RFB 003.008\n'));
  session.receive(Uint8Array.of(2));
  await run(0);
  sent.length = 0;
  // A wrong answer and the right one at once.
  session.receive(new Uint8Array(32).fill(3 ^ 0x55).fill(0, 0, 16));
  await run(0);
  assert.ok(state.closed);
  assert.deepEqual(sent.slice(0, 4), [0, 0, 0, 1]);
  assert.equal(sent.length, 8 + 'Authentication failed'.length);
});

test('the password lets in, until it expires', async () => {
  const { vnc, client, run } = server({ password: true });
  const answer = async (bytes: number) => {
    const c = client();
    c.session.receive(new TextEncoder().encode('RFB 003.008\n'));
    c.session.receive(Uint8Array.of(2));
    c.session.receive(new Uint8Array(16).fill(bytes));
    await run(0);
    return c.session.state;
  };
  assert.equal(await answer(3 ^ 0x55), 'closed', 'there is no password yet');
  vnc.setPassword('x');
  assert.equal(await answer(3 ^ 0x55), 'init');
  assert.equal(await answer(9), 'closed');
  vnc.expirePassword(0);
  assert.equal(await answer(3 ^ 0x55), 'closed');
});

test('one that wants to be alone sends the others away', async () => {
  const { client, run } = server();
  const [a, b] = [client(), client()];
  hello(a.session);
  hello(b.session, 0);
  await run(0);
  assert.deepEqual([a.state.closed, b.state.closed], [true, false]);
});

test('a client that is silent, or does not read, or sends nonsense, costs nothing for long', async () => {
  const { client, run, vnc, screen } = server();
  const silent = client();
  await run(60_000);
  assert.equal(silent.state.closed, true);
  // Answers that nobody reads end the connection.
  const deaf = client(true);
  hello(deaf.session);
  for (let i = 0; i < 1000 && !deaf.state.closed; i++)
    deaf.session.receive(Uint8Array.of(0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  assert.equal(deaf.state.closed, true);
  for (let seed = 1; seed <= 300; seed++) {
    let x = seed;
    const random = (n: number): number => {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0;
      return (x >>> 8) % n;
    };
    const c = client();
    if (seed % 3) hello(c.session);
    for (let i = 0; i < 40 && !c.state.closed; i++) {
      const type = [0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255, random(256)][random(12)]!;
      const bytes = Uint8Array.from({ length: 1 + random(40) }, () => (random(3) ? 0 : random(256)));
      bytes[0] = type;
      c.session.receive(bytes);
    }
    await run(40);
    c.session.close();
    assert.equal(screen.surface.width, 640, `seed ${seed}`);
  }
  assert.equal(vnc.clients().length, 0);
});
