// Hostile VNC clients, seeded: handshakes and messages in every order, cut and damaged, from clients that read, stall or go away, while the
// guest draws and changes its size. Nothing may throw, a client that does not read is not kept in memory, and the next one is served.

import assert from 'node:assert/strict';
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { InputRouter } from '../../src/display/input.ts';
import type { RfbSession } from '../../src/display/rfb-session.ts';
import { Screen } from '../../src/display/screen.ts';
import { Vnc } from '../../src/display/vnc.ts';
import { deflater } from '../../src/host/node/vnc.ts';
import { parseUsers, type ScramDerivation, scramLine } from '../../src/rpc/scram.ts';
import { ScramClient } from '../../src/rpc/scram-testing.ts';
import { Random } from './asm.ts';

/** Bytes that a client which does not read may have waiting: what is answered at once, and one update. */
const WAITING = (1 << 18) + (1 << 20) * 8;
const text = new TextEncoder();

const be = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, n) => Math.floor(value / 256 ** (bytes - 1 - n)) & 0xff);

/** One message, right in its length unless chance has it otherwise. */
function clientMessage(r: Random): number[] {
  const u16 = (): number[] => be(r.pick([0, 1, 63, 64, 65, 800, 0xffff, r.below(0x10000)]), 2);
  const noise = (n: number): number[] => Array.from({ length: n }, () => r.below(256));
  switch (r.below(13)) {
    case 0: {
      // Formats that are usable, and any other.
      const bits = r.pick([8, 16, 32, 32, 24, 0, 255]);
      const maxes = r.pick([
        [255, 255, 255],
        [31, 63, 31],
        [7, 7, 3],
        [0, 0, 0],
        [65_535, 1, 1],
      ]);
      const shifts = r.pick([
        [16, 8, 0],
        [11, 5, 0],
        [0, 3, 6],
        [255, 0, 31],
      ]);
      const head = [0, 0, 0, 0, bits, r.below(40), r.below(2), r.pick([1, 1, 0])];
      return [...head, ...maxes.flatMap((m) => be(m, 2)), ...shifts, 0, 0, 0];
    }
    case 1: {
      const list = Array.from({ length: r.below(r.below(10) === 0 ? 400 : 12) }, () =>
        r.pick([0, 5, 6, 7, 16, -224, -223, -239, -257, -258, -261, -307, -308, -256, -247, -32, r.u32()]),
      );
      const count = r.below(20) === 0 ? r.below(0x10000) : list.length;
      return [2, 0, ...be(count, 2), ...list.flatMap((e) => be(e >>> 0, 4))];
    }
    case 2:
    case 3:
    case 4:
      return [3, r.below(2), ...u16(), ...u16(), ...u16(), ...u16()];
    case 5:
      return [4, r.below(2), 0, 0, ...be(r.pick([0x61, 0xff0d, 0xffe1, 0, r.u32()]), 4)];
    case 6:
    case 7:
      return [5, r.below(256), ...u16(), ...u16()];
    case 8: {
      const length = r.pick([0, 3, 100, 0xffff_fff0, 0x7fff_ffff, r.below(2000)]);
      return [6, 0, 0, 0, ...be(length, 4), ...noise(length < 2000 ? length : 5)];
    }
    case 9: {
      const screens = r.pick([0, 1, 2, 255]);
      return [251, 0, ...u16(), ...u16(), screens, 0, ...noise(16 * screens)];
    }
    case 10:
      return [255, r.pick([0, 0, 1, r.below(256)]), ...be(r.below(4), 2), ...noise(8)];
    case 11:
      return [r.pick([150, 248, 250]), ...noise(12)];
    default:
      return noise(r.below(30));
  }
}

/** What SASL counts, with its NUL, and now and then with another number. */
const counted = (r: Random, bytes: readonly number[]): number[] => [
  ...be(r.below(30) === 0 ? r.pick([0, 1, 4096, 4097, 0xffff_ffff, r.below(200)]) : bytes.length, 4),
  ...bytes,
];
/** A message of SCRAM, damaged now and then. */
function scramMessage(r: Random, message: string): number[] {
  const bytes = [
    ...text.encode(r.below(10) === 0 ? r.pick(['', ',', 'n,,', 'p=x,,n=a,r=b', 'n,a=,n==2C,r=', 'c=biws,r=,p=']) : message),
    0,
  ];
  if (r.below(6) === 0) bytes[r.below(bytes.length)] = r.below(256);
  return counted(r, bytes);
}
const crypto: ScramDerivation = {
  random: (n) => new Uint8Array(n).fill(3),
  sha256: (bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()),
  hmac: (key, bytes) => new Uint8Array(createHmac('sha256', key).update(bytes).digest()),
  derive: async (password, salt, iterations) => new Uint8Array(pbkdf2Sync(password, salt, iterations, 32, 'sha256')),
};

/** One run. @throws Error with the seed */
export async function fuzzRfb(seed: number, clients: number): Promise<void> {
  const r = new Random(seed);
  let now = 0;
  let timers: { readonly at: number; readonly f: () => void }[] = [];
  const after = (ms: number, f: () => void): (() => void) => {
    const timer = { at: now + ms, f };
    timers.push(timer);
    return () => {
      timers = timers.filter((t) => t !== timer);
    };
  };
  const pass = async (ms: number): Promise<void> => {
    now += ms;
    const due = timers.filter((t) => t.at <= now);
    timers = timers.filter((t) => t.at > now);
    for (const t of due) t.f();
    await turn();
  };
  let draws = 0;
  const screen = new Screen(
    {
      name: 'fuzz',
      draw(surface) {
        if (draws++ === 0 || r.below(40) === 0) surface.resize(1 + r.below(r.below(8) === 0 ? 3000 : 400), 1 + r.below(300));
        const line = new Uint32Array(surface.width);
        line.fill(r.u32() & 0xffffff, r.below(surface.width));
        surface.line(r.below(surface.height), line);
      },
      wish: () => r.below(2) === 0,
    },
    { now: () => now, after },
  );
  const input = new InputRouter();
  let events = 0;
  input.add({
    name: 'all',
    kinds: ['key', r.pick(['absolute', 'relative'] as const)],
    listening: () => true,
    take: (e) => (events += e.length),
  });
  const users = parseUsers(await scramLine(crypto, 'fred', 'secret', 1));
  const sasl = r.below(3) === 0 ? { crypto, users: () => users } : undefined;
  const vnc = new Vnc({
    ...{
      sasl,
      id: 'default',
      name: 'fuzz',
      screen,
      input,
      password: r.below(5) === 0,
      share: r.pick(['allow-exclusive', 'force-shared', 'ignore'] as const),
    },
    des: (_, blocks) => blocks.map((b) => b ^ 0x55),
    random: (n) => new Uint8Array(n).fill(3),
    ...(r.below(4) === 0 ? {} : { deflate: deflater }),
    time: () => now / 1000,
    after,
    event: () => {},
    report: () => {},
  });
  if (vnc.auth === 'vnc') vnc.setPassword('secret');
  const address = { host: 'a', service: '1', family: 'ipv4', websocket: false } as const;
  /** A client: bytes that wait for it, and how many it was sent. */
  const connect = (reads: () => boolean) => {
    const state = { waiting: 0, most: 0, heard: 0, closed: false, last: new Uint8Array(0) };
    const session = vnc.connect(
      {
        write(bytes) {
          state.heard += bytes.length;
          state.last = bytes.slice();
          if (reads()) return turn();
          state.waiting += bytes.length;
          state.most = Math.max(state.most, state.waiting);
          return new Promise(() => {});
        },
        close() {
          state.closed = true;
        },
      },
      address,
      address,
    );
    return { session, state };
  };
  /** `bends`: the words of SASL may be wrong. */
  const hello = async (session: RfbSession, minor: string, told: { last: Uint8Array }, bends: boolean): Promise<void> => {
    session.receive(text.encode(`RFB 003.${minor}\n`));
    if (vnc.auth === 'vnc') {
      if (minor !== '003') session.receive(Uint8Array.of(2));
      session.receive(new Uint8Array(16).fill(3 ^ 0x55));
    } else if (vnc.auth === 'sasl') {
      const talk = new ScramClient(crypto, bends ? r.pick(['fred', 'fred', 'george']) : 'fred', 'secret', 'abc');
      const say = (message: string): void =>
        session.receive(
          Uint8Array.from(bends ? scramMessage(r, message) : [...be(message.length + 1, 4), ...text.encode(message), 0]),
        );
      const mechanism = [...text.encode(bends && r.below(20) === 0 ? 'PLAIN' : 'SCRAM-SHA-256')];
      session.receive(Uint8Array.of(20, ...(bends ? counted(r, mechanism) : [...be(mechanism.length, 4), ...mechanism])));
      if (bends && r.below(4) === 0) session.receive(new Uint8Array(4));
      say(talk.first);
      const heard = (): string => String.fromCharCode(...told.last.subarray(4, -2));
      for (let n = 0; n < 10 && !heard().startsWith('r='); n++) await turn();
      const serverFirst = heard();
      if (/^r=.*,s=.*,i=(1|4096)$/.test(serverFirst)) say((await talk.final(serverFirst)).message);
    } else if (minor !== '003') session.receive(Uint8Array.of(1));
    session.receive(Uint8Array.of(1));
  };
  try {
    for (let n = 0; n < clients; n++) {
      const stalls = r.below(3) === 0 ? r.below(20) : Number.POSITIVE_INFINITY;
      let wrote = 0;
      const { session, state } = connect(() => wrote++ < stalls);
      if (!session) throw new Error('there are too many clients');
      const begin = r.below(10);
      if (begin === 0) session.receive(Uint8Array.from({ length: r.below(40) }, () => r.below(256)));
      else await hello(session, begin === 1 ? '003' : begin === 2 ? '007' : begin === 3 ? '889' : '008', state, true);
      for (let m = 0; m < 60 && !state.closed; m++) {
        const bytes = Uint8Array.from(clientMessage(r));
        if (r.below(40) === 0 && bytes.length > 0) bytes[r.below(bytes.length)] = r.below(256);
        const cut = r.below(4) === 0 ? r.below(bytes.length + 1) : bytes.length;
        session.receive(bytes.subarray(0, cut));
        if (r.below(30) !== 0) session.receive(bytes.subarray(cut));
        if (r.below(3) === 0) await pass(r.pick([0, 10, 50, 1000]));
        if (r.below(100) === 0) vnc.disconnectAll();
        assert.ok(state.most <= WAITING, `${state.most} bytes wait for a client that does not read`);
      }
      // It goes away, now and then without a word.
      if (r.below(8) !== 0) session.close();
      if (n % 20 === 19) vnc.disconnectAll();
      await pass(20);
    }
    vnc.disconnectAll();
    await pass(60_000);
    assert.equal(vnc.clients().length, 0);
    // The next one is served: the greeting, the picture.
    const { session, state } = connect(() => true);
    await hello(session!, '008', state, false);
    await pass(10);
    const before = state.heard;
    session!.receive(Uint8Array.of(3, 0, 0, 0, 0, 0, ...be(4000, 2), ...be(4000, 2)));
    for (let n = 0; n < 100 && state.heard < before + 4 * screen.surface.width; n++) await pass(50);
    assert.ok(
      !state.closed && state.heard >= before + 4 * screen.surface.width,
      `a good client got ${state.heard - before} bytes`,
    );
    session!.close();
  } catch (error) {
    throw new Error(`rfb, seed ${seed}: ${error instanceof Error ? error.stack : error}`);
  }
}
