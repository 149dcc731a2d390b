import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeHost, VirtualClock } from './testing.ts';
import { TftpServer } from './tftp.ts';

const GUEST = Uint8Array.of(10, 0, 2, 15);
const SERVER = Uint8Array.of(10, 0, 2, 2);

/** A server over one file, with a link that keeps what is sent. */
function rig(length: number) {
  const clock = new VirtualClock();
  const content = Uint8Array.from({ length }, (_, i) => i * 11);
  const asked: string[] = [];
  const state = { open: 0 };
  const host = Object.assign(new FakeHost(clock), {
    async file(root: string, names: readonly string[]) {
      asked.push(`${root}:${names.join('/')}`);
      if (names.at(-1) !== 'boot.bin') return undefined;
      state.open++;
      return {
        size: length,
        async read(offset: number, into: Uint8Array) {
          const piece = content.subarray(offset, offset + into.length);
          into.set(piece);
          return piece.length;
        },
        async close() {
          state.open--;
        },
      };
    },
  });
  const sent: Uint8Array[] = [];
  const link = {
    frame: (_: number, n: number) => new Uint8Array(n),
    bodyAt: () => 0,
    sendSummed: (frame: Uint8Array) => void sent.push(frame.slice(8)),
  };
  const server = new TftpServer('/srv', 1500, link as never, host);
  const settle = (): Promise<void> => new Promise((r) => setImmediate(r));
  const say = async (...bytes: readonly (number | string)[]): Promise<Uint8Array | undefined> => {
    const data = Uint8Array.from(bytes.flatMap((b) => (typeof b === 'number' ? [b] : [...new TextEncoder().encode(b), 0])));
    const before = sent.length;
    server.input({ src: GUEST, dst: SERVER, srcPort: 2000, dstPort: 69, data });
    await settle();
    await settle();
    return sent.length > before ? sent.at(-1) : undefined;
  };
  return { clock, content, asked, state, sent, server, say, settle };
}

test('a file goes block by block, the last one short, in the size that was asked for', async () => {
  const { say, content, state, asked } = rig(2500);
  const options = await say(0, 1, '/pxe/boot.bin', 'octet', 'tsize', '0', 'blksize', '1000');
  assert.deepEqual([options![1], new TextDecoder().decode(options!.subarray(2))], [6, 'tsize\x002500\0blksize\x001000\0']);
  const parts: Uint8Array[] = [];
  for (let n = 0; n < 3; n++) {
    const block = await say(0, 4, 0, n);
    assert.deepEqual([...block!.subarray(0, 4)], [0, 3, 0, n + 1]);
    parts.push(block!.subarray(4));
  }
  assert.deepEqual(Uint8Array.from(Buffer.concat(parts)), content);
  assert.equal(await say(0, 4, 0, 3), undefined);
  assert.deepEqual([state.open, asked], [0, ['/srv:pxe/boot.bin']]);
});

test('without options blocks have 512 bytes, and a file of whole blocks ends with an empty one', async () => {
  const { say } = rig(512);
  assert.equal((await say(0, 1, 'boot.bin', 'octet'))!.length, 4 + 512);
  assert.deepEqual([...(await say(0, 4, 0, 1))!], [0, 3, 0, 2]);
});

test('what leads out of the folder, is not there, or is to be written is refused', async () => {
  const { say, asked, sent } = rig(10);
  for (const [name, code] of [['../etc/passwd', 2], ['a/../../x', 2], ['..\\x', 2], ['', 2], ['other', 1]] as const) {
    const answer = await say(0, 1, name, 'octet');
    assert.deepEqual([answer![1], answer![3]], [5, code], name);
  } // biome-ignore format: pairs
  assert.deepEqual(asked, ['/srv:other']);
  assert.equal((await say(0, 2, 'boot.bin', 'octet'))![3], 2);
  assert.equal((await say(0, 1, 'boot.bin', 'mail'))![3], 4);
  assert.ok(sent.every((p) => p[1] === 5));
});

test('what is not answered is sent again, and given up; nothing that a guest sends keeps files open or throws', async () => {
  const { say, clock, sent, state, server } = rig(5000);
  await say(0, 1, 'boot.bin', 'octet');
  clock.run(1100);
  assert.equal(sent.length, 2);
  clock.run(60_000);
  assert.equal(state.open, 0);
  let x = 5;
  const next = (n: number): number => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((x / 2 ** 32) * n);
  };
  for (let n = 0; n < 300; n++) {
    const data = Uint8Array.from({ length: next(40) }, () => next(256));
    if (next(2)) data.set([0, 1, ...new TextEncoder().encode('boot.bin\0octet\0')].slice(0, data.length));
    server.input({ src: GUEST, dst: SERVER, srcPort: 1000 + next(40), dstPort: 69, data });
    if (n % 10 === 0) await new Promise((r) => setImmediate(r));
  }
  await new Promise((r) => setImmediate(r));
  assert.ok(state.open <= 20, `${state.open} are open`);
  server.close();
  await new Promise((r) => setImmediate(r));
  assert.equal(state.open, 0);
});
