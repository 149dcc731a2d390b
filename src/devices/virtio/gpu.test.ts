import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GpuIo, type GpuState, gpuLayout, gpuModel, wishSize } from './gpu.ts';
import { Ev, inputIo, inputLayout, inputModel } from './input.ts';
import { RAM_BYTES, TestQueue, virtioRig } from './testing.ts';

const SIZE = 64;

/** A GPU with a driver that sends one command at a time, and what it shows. */
function gpu(memory = 1 << 20, outputs = 1) {
  const state: GpuState = gpuLayout.view(new SharedArrayBuffer(gpuLayout.size), 0);
  state.connected = 1;
  state.width.fill(800);
  state.height.fill(600);
  const rig = virtioRig(gpuModel(state, true, outputs), { features: 2n });
  const blank = () => ({
    mode: undefined as { readonly width: number; readonly height: number } | undefined,
    pixels: new Map<string, number>(),
    cursor: undefined as Uint32Array | undefined,
  });
  const heads = Array.from({ length: outputs }, blank);
  const shown = heads[0]!;
  const later: (() => void)[] = [];
  const io = new GpuIo({
    core: rig.core,
    state,
    targets: heads.map((on) => ({
      mode: (m) => {
        on.mode = m;
      },
      line: (x, y, pixels) => {
        for (const [i, p] of pixels.entries()) on.pixels.set(`${x + i},${y}`, p);
      },
      cursor: (c) => {
        on.cursor = c?.pixels;
      },
    })),
    edid: () => new Uint8Array(128).fill(7),
    memory,
    now: () => 0,
    after: (_, f) => later.push(f),
  });
  const queues = [new TestQueue(rig, 0, false), new TestQueue(rig, 1, false)] as const;
  const at = rig.data;
  /** Sends words; the answer's first word, and its bytes. */
  const send = (words: readonly number[], queue: 0 | 1 = 0) => {
    for (const [i, w] of words.entries()) rig.view.setUint32(at + 4 * i, w, true);
    const answer = at + 0x1000;
    rig.bytes.fill(0, answer, answer + 2048);
    queues[queue].add([
      { gpa: at, length: 4 * words.length },
      ...(queue === 0 ? [{ gpa: answer, length: 2048, write: true }] : []),
    ]);
    rig.core.kick(queue);
    rig.bells.hear();
    assert.equal(queues[queue].used().length, 1);
    return { type: rig.view.getUint32(answer, true), word: (n: number) => rig.view.getUint32(answer + 4 * n, true) };
  };
  const head = (type: number, flags = 0): number[] => [type, flags, 9, 0, 0, 0];
  return { rig, io, shown, heads, send, head, state, at };
}

test('a picture goes from guest memory by a resource to the scanout, where it was flushed', () => {
  const g = gpu();
  const info = g.send(g.head(0x100));
  assert.deepEqual([info.type, info.word(8), info.word(9), info.word(10)], [0x1101, 800, 600, 1]);
  assert.equal(g.send([...g.head(0x101), 1, 2, SIZE, SIZE]).type, 0x1100);
  assert.equal(g.send([...g.head(0x101), 1, 2, SIZE, SIZE]).type, 0x1203, 'the number is taken');
  // Two pieces that do not lie together.
  const [a, b] = [g.at + 0x8000, g.at + 0x20000];
  const half = (SIZE * SIZE * 4) / 2;
  assert.equal(g.send([...g.head(0x106), 1, 2, a, 0, half, 0, b, 0, half, 0]).type, 0x1100);
  assert.equal(g.send([...g.head(0x103), 0, 0, SIZE, SIZE, 0, 1]).type, 0x1100);
  assert.deepEqual(g.shown.mode, { x: 0, y: 0, width: SIZE, height: SIZE });
  g.rig.view.setUint32(a + 4 * (SIZE * 3 + 5), 0xff123456, true);
  g.rig.view.setUint32(b, 0xff00ff00, true);
  assert.equal(g.send([...g.head(0x105), 0, 0, SIZE, SIZE, 0, 0, 1, 0]).type, 0x1100);
  assert.equal(g.shown.pixels.get('5,3'), 0, 'nothing is shown before it was flushed');
  assert.equal(g.send([...g.head(0x104), 0, 0, SIZE, 8, 1, 0]).type, 0x1100);
  assert.deepEqual([g.shown.pixels.get('5,3'), g.shown.pixels.get('0,32')], [0x123456, 0]);
  const fenced = g.send([...g.head(0x104, 1), 0, 0, SIZE, SIZE, 1, 0]);
  assert.deepEqual([fenced.word(1), fenced.word(2)], [1, 9]);
  assert.equal(g.shown.pixels.get('0,32'), 0x00ff00);
  // As a pointer.
  g.send([...g.head(0x300), 0, 0, 0, 0, 1, 3, 4, 0], 1);
  assert.equal(g.shown.cursor?.[SIZE * 3 + 5], 0xff123456);
  assert.equal(g.send([...g.head(0x102), 1, 0]).type, 0x1100);
  assert.equal(g.shown.mode, undefined);
});

test('what is too large, unknown or outside is answered with an error', () => {
  const g = gpu();
  assert.equal(g.send([...g.head(0x101), 2, 2, 1024, 1024]).type, 0x1201);
  assert.equal(g.send([...g.head(0x101), 2, 9, 16, 16]).type, 0x1205);
  assert.equal(g.send([...g.head(0x101), 2, 1, 16, 16]).type, 0x1100);
  assert.equal(g.send([...g.head(0x104), 0, 0, 17, 1, 2, 0]).type, 0x1205);
  assert.equal(g.send([...g.head(0x104), 0xffffffff, 0, 2, 1, 2, 0]).type, 0x1205);
  assert.equal(g.send([...g.head(0x106), 2, 1, RAM_BYTES - 16, 0, 64, 0]).type, 0x1200, 'its memory is not all RAM');
  assert.equal(g.send([...g.head(0x106), 2, 100000]).type, 0x1200);
  assert.equal(g.send([...g.head(0x103), 0, 0, 16, 16, 5, 2]).type, 0x1202);
  assert.equal(g.send(g.head(0x999)).type, 0x1200);
  const edid = g.send([...g.head(0x10a), 0, 0]);
  assert.deepEqual([edid.type, edid.word(6), edid.word(8)], [0x1104, 128, 0x07070707]);
  g.rig.lock.run(() => wishSize(g.rig.core, g.state, 1024, 768));
  assert.equal(g.state.events, 1);
  assert.equal(g.send(g.head(0x100)).word(8), 1024);
});

test('outputs show each their own part of a picture and have pointers of their own; those that nobody wished for are not connected', () => {
  const g = gpu(1 << 20, 3);
  assert.equal(gpuModel(g.state, true, 3).config.read(8), 3);
  const words = () => Array.from({ length: 3 }, (_, n) => [8, 9, 10].map((w) => g.send(g.head(0x100)).word(w + 6 * n)));
  assert.deepEqual(words(), [[800, 600, 1], [0, 0, 0], [0, 0, 0]]); // biome-ignore format: one line
  g.rig.lock.run(() => wishSize(g.rig.core, g.state, 640, 480, 2));
  assert.deepEqual(words(), [[800, 600, 1], [0, 0, 0], [640, 480, 1]]); // biome-ignore format: one line
  g.send([...g.head(0x101), 1, 2, 128, 64]);
  g.send([...g.head(0x106), 1, 1, g.at + 0x8000, 0, 128 * 64 * 4, 0]);
  g.rig.view.setUint32(g.at + 0x8000, 0x11, true);
  g.rig.view.setUint32(g.at + 0x8000 + 4 * 64, 0x22, true);
  g.send([...g.head(0x105), 0, 0, 128, 64, 0, 0, 1, 0]);
  assert.equal(g.send([...g.head(0x103), 0, 0, 64, 64, 0, 1]).type, 0x1100);
  assert.equal(g.send([...g.head(0x103), 64, 0, 64, 64, 2, 1]).type, 0x1100);
  assert.equal(g.send([...g.head(0x103), 0, 0, 64, 64, 3, 1]).type, 0x1202);
  g.send([...g.head(0x104), 0, 0, 128, 64, 1, 0]);
  assert.deepEqual(g.heads.map((h) => h.pixels.get('0,0')), [0x11, undefined, 0x22]); // biome-ignore format: one line
  g.send([...g.head(0x101), 9, 2, SIZE, SIZE]);
  g.send([...g.head(0x300), 2, 0, 0, 0, 9, 0, 0, 0], 1);
  g.send([...g.head(0x300), 7, 0, 0, 0, 9, 0, 0, 0], 1);
  assert.deepEqual(g.heads.map((h) => h.cursor !== undefined), [false, false, true]); // biome-ignore format: one line
  const h = gpu(1 << 20, 3);
  h.rig.bytes.set(g.rig.bytes);
  h.io.restore(g.io.save());
  assert.deepEqual(h.heads, g.heads);
  assert.equal(g.send([...g.head(0x102), 1, 0]).type, 0x1100);
  assert.deepEqual(g.heads.map((on) => on.mode), [undefined, undefined, undefined]); // biome-ignore format: one line
});

test('pictures of all outputs together take no more than resources may', () => {
  const g = gpu(64 * 64 * 4, 16);
  g.send([...g.head(0x101), 1, 2, 64, 64]);
  assert.equal(g.send([...g.head(0x103), 0, 0, 64, 64, 0, 1]).type, 0x1100);
  assert.equal(g.send([...g.head(0x103), 0, 0, 64, 64, 1, 1]).type, 0x1201);
  assert.equal(g.send([...g.head(0x103), 0, 0, 32, 64, 0, 1]).type, 0x1100);
  assert.equal(g.send([...g.head(0x103), 0, 0, 32, 64, 15, 1]).type, 0x1100);
});

test('a saved machine has the pictures and goes on with them', () => {
  const g = gpu();
  g.send([...g.head(0x101), 5, 2, SIZE, SIZE]);
  const picture = g.at + 0x2000;
  for (let i = 0; i < SIZE * SIZE; i++) g.rig.view.setUint32(picture + 4 * i, i * 77, true);
  g.send([...g.head(0x106), 5, 2, picture, 0, 8192, 0, picture + 8192, 0, 8192, 0]);
  g.send([...g.head(0x105), 0, 0, SIZE, SIZE, 0, 0, 5, 0]);
  g.send([...g.head(0x103), 0, 0, SIZE, SIZE, 0, 5]);
  g.send([...g.head(0x300), 0, 0, 0, 0, 5, 3, 4, 0], 1);
  const h = gpu();
  h.rig.bytes.set(g.rig.bytes);
  h.io.restore(g.io.save());
  assert.deepEqual([h.shown.mode?.width, h.shown.pixels, h.shown.cursor], [SIZE, g.shown.pixels, g.shown.cursor]);
  assert.deepEqual(h.io.save(), g.io.save());
  const [head, pixels] = g.io.save();
  assert.throws(() => h.io.restore([head!]), /Cannot restore virtio-gpu: the pixels of its resource 5 are missing/);
  assert.throws(() => gpu(1 << 10).io.restore([head!, pixels!]), /its resource 5 does not fit/);
});

test('no command of a driver breaks it or takes more memory than it may have', () => {
  for (let seed = 1; seed <= 40; seed++) {
    let x = seed;
    const random = (n: number): number => {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0;
      return Math.floor(((x >>> 4) / 2 ** 28) * n);
    };
    const g = gpu(1 << 18);
    for (let i = 0; i < 200; i++) {
      const type = random(8) ? 0x100 + random(12) : 0x300;
      const value = () => [random(4), random(64), random(300), random(RAM_BYTES), 0xffffffff][random(5)]!;
      const words = [...g.head(type, random(2)), ...Array.from({ length: random(12) }, value)];
      g.send(words, type >= 0x300 ? 1 : 0);
    }
    assert.deepEqual(g.rig.reports, [], `seed ${seed}`);
    const h = gpu(1 << 18);
    h.rig.bytes.set(g.rig.bytes);
    h.io.restore(g.io.save());
    assert.deepEqual(h.io.save(), g.io.save(), `seed ${seed}`);
  }
});

test('an input device tells what it is, and sends what belongs together at once', () => {
  const s = inputLayout.view(new SharedArrayBuffer(64), 0);
  const model = inputModel(s, {
    name: 'Tablet',
    serial: undefined,
    product: 3,
    codes: { [Ev.key]: [0x110], [Ev.absolute]: [0, 1] },
    axisMax: 0x7fff,
  });
  const config = (select: number, subsel: number): number[] => {
    model.config.write!(0, select);
    model.config.write!(1, subsel);
    return Array.from({ length: model.config.read(2) }, (_, i) => model.config.read(8 + i));
  };
  assert.equal(String.fromCharCode(...config(1, 0)), 'Tablet');
  assert.deepEqual(config(0x11, Ev.absolute), [3]);
  assert.deepEqual(config(0x11, Ev.key).at(-1), 1);
  assert.deepEqual(config(0x12, 1).slice(4, 8), [0xff, 0x7f, 0, 0]);
  assert.deepEqual([config(0x12, 2), config(2, 0), config(99, 0)], [[], [], []]);

  const rig = virtioRig(model);
  const heard: number[] = [];
  const io = inputIo(rig.core, (e) => heard.push(e.type, e.code, e.value));
  const events = new TestQueue(rig, 0, false);
  events.add([{ gpa: rig.data, length: 8, write: true }]);
  io.send([{ type: Ev.absolute, code: 0, value: 5 }]);
  assert.deepEqual(events.used(), [], 'without room for all of them none is sent');
  events.add([{ gpa: rig.data + 8, length: 8, write: true }]);
  io.send([{ type: Ev.absolute, code: 0, value: 5 }]);
  assert.equal(events.used().length, 2);
  assert.deepEqual([...rig.bytes.subarray(rig.data, rig.data + 16)], [3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  const status = new TestQueue(rig, 1, false);
  rig.bytes.set([0x11, 0, 1, 0, 1, 0, 0, 0], rig.data + 64);
  status.add([{ gpa: rig.data + 64, length: 8 }]);
  rig.core.kick(1);
  rig.bells.hear();
  assert.deepEqual(heard, [0x11, 1, 1]);
});
