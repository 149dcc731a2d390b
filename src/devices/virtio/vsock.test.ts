import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import { TestQueue, virtioRig } from './testing.ts';
import { readVsockHeader, VSOCK_HEADER, type VsockHeader, VsockOp, VsockQueue, vsockModel, writeVsockHeader } from './vsock.ts';
import { VsockIo, type VsockStream, type VsockStreamEvents } from './vsock-io.ts';

const CID = 3;
const text = (bytes: Uint8Array): string => new TextDecoder('latin1').decode(bytes);
const bytesOf = (s: string): Uint8Array => Uint8Array.from(s, (c) => c.charCodeAt(0));

/** A stream of the host whose other side is the test. */
class FakeStream implements VsockStream {
  events!: VsockStreamEvents;
  got = '';
  paused = true;
  ended = false;
  gone = false;
  write(bytes: Uint8Array): void {
    this.got += text(bytes);
    this.pending += bytes.length;
  }
  pending = 0;
  /** What was written leaves. */
  flush(): void {
    const n = this.pending;
    this.pending = 0;
    if (n > 0 && !this.gone) this.events.written(n);
  }
  end(): void {
    this.ended = true;
  }
  reset(): void {
    this.gone = true;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
}

function host() {
  const rig = virtioRig(vsockModel(CID));
  const connects: { path: string; stream: FakeStream }[] = [];
  let accept: (stream: VsockStream) => VsockStreamEvents | undefined = () => undefined;
  const timers: (() => void)[] = [];
  const io = new VsockIo(rig.core, {
    cid: CID,
    path: '/v',
    sockets: {
      connect(path, events) {
        const stream = new FakeStream();
        stream.events = events;
        connects.push({ path, stream });
        return stream;
      },
      async listen(_, a) {
        accept = a;
        return { close() {} };
      },
    },
    after(_, action) {
      timers.push(action);
      return { cancel() {} };
    },
  });
  /** Somebody connects to the listening socket. */
  const knock = (): FakeStream | undefined => {
    const stream = new FakeStream();
    const events = accept(stream);
    if (events) stream.events = events;
    return events && stream;
  };
  return { rig, io, connects, knock, timers };
}

/** The guest's driver: queues of buffers of `size` bytes. */
function driver(rig: ReturnType<typeof virtioRig>, size: number) {
  const rx = new TestQueue(rig, VsockQueue.rx, false);
  const tx = new TestQueue(rig, VsockQueue.tx, false);
  const place = new Map<number, number>();
  let next = 0;
  const offer = (count: number): void => {
    for (let n = 0; n < count; n++) {
      const gpa = rig.data + 0x2000 * (next++ % 16);
      place.set(rx.add([{ gpa, length: size, write: true }]), gpa);
    }
    rig.core.kick(VsockQueue.rx);
    rig.bells.hear();
  };
  const send = (h: Partial<VsockHeader>, payload = ''): void => {
    const header = writeVsockHeader({
      sourceCid: BigInt(CID), targetCid: 2n, sourcePort: 1000, targetPort: 80, length: payload.length, type: 1, op: VsockOp.data, flags: 0, bufferSize: 1 << 16, forwarded: 0, ...h,
    }); // biome-ignore format: one object
    const at = rig.data + 0x22000;
    rig.bytes.set(header, at);
    rig.bytes.set(bytesOf(payload), at + VSOCK_HEADER);
    tx.add([{ gpa: at, length: VSOCK_HEADER }, ...(payload === '' ? [] : [{ gpa: at + VSOCK_HEADER, length: payload.length }])]);
    rig.core.kick(VsockQueue.tx);
    rig.bells.hear();
  };
  /** Packets that came, as `op:ports:data`. */
  const received = (): (VsockHeader & { readonly payload: string })[] =>
    rx.used().map(([id, length]) => {
      const gpa = place.get(id)!;
      const h = readVsockHeader(rig.bytes.subarray(gpa, gpa + VSOCK_HEADER));
      assert.equal(length, VSOCK_HEADER + h.length);
      return { ...h, payload: text(rig.bytes.subarray(gpa + VSOCK_HEADER, gpa + length)) };
    });
  return { offer, send, received };
}

test('a guest connects to a port of the host, and both send and end', () => {
  const { rig, connects, io } = host();
  const guest = driver(rig, 4096);
  guest.offer(4);
  guest.send({ op: VsockOp.request });
  assert.equal(connects[0]!.path, '/v_80');
  const { stream } = connects[0]!;
  assert.deepEqual(guest.received(), []);
  stream.events.connected();
  const [response] = guest.received();
  assert.deepEqual([response!.op, response!.sourcePort, response!.targetPort, response!.targetCid], [2, 80, 1000, 3n]);
  assert.ok(response!.bufferSize >= 65536);
  guest.send({}, 'hello');
  assert.equal(stream.got, 'hello');
  stream.events.data(bytesOf('world'));
  assert.deepEqual(guest.received().map((p) => [p.op, p.payload]), [[VsockOp.data, 'world']]); // biome-ignore format: one line
  stream.flush();
  guest.send({ op: VsockOp.creditRequest });
  assert.deepEqual(guest.received().map((p) => [p.op, p.forwarded]), [[VsockOp.creditUpdate, 5]]); // biome-ignore format: one line
  guest.offer(4);
  stream.events.end();
  assert.deepEqual(guest.received().map((p) => [p.op, p.flags]), [[VsockOp.shutdown, 2]]); // biome-ignore format: one line
  guest.send({}, 'last');
  guest.send({ op: VsockOp.shutdown, flags: 3 });
  // What the guest has sent goes before the stream ends.
  assert.deepEqual([stream.ended, stream.gone], [true, false]);
  stream.flush();
  assert.equal(stream.gone, true);
  assert.deepEqual(guest.received().map((p) => p.op), [VsockOp.reset]); // biome-ignore format: one line
  assert.equal(io.size, 0);
});

test('a port where nobody listens, and packets of no connection, are answered by a reset', () => {
  const { rig, connects, io } = host();
  const guest = driver(rig, 4096);
  guest.offer(8);
  guest.send({ op: VsockOp.request });
  connects[0]!.stream.events.closed();
  assert.deepEqual(guest.received().map((p) => [p.op, p.targetPort]), [[3, 1000]]); // biome-ignore format: one line
  guest.send({ sourcePort: 7 }, 'x');
  guest.send({ op: VsockOp.request, targetCid: 9n, sourcePort: 8 });
  guest.send({ op: VsockOp.request, type: 2, sourcePort: 9 });
  guest.send({ op: VsockOp.reset, sourcePort: 10 });
  guest.send({ op: VsockOp.request, sourceCid: 4n, sourcePort: 11 });
  assert.deepEqual(guest.received().map((p) => [p.op, p.targetPort]), [[3, 7], [3, 8], [3, 9]]); // biome-ignore format: one line
  assert.deepEqual([connects.length, io.size], [1, 0]);
});

test('the host says CONNECT and hears OK when the guest has accepted', () => {
  const { rig, knock, io } = host();
  const guest = driver(rig, 4096);
  guest.offer(8);
  const stream = knock()!;
  stream.events.data(bytesOf('CONN'));
  stream.events.data(bytesOf('ECT 52\nearly'));
  const [request] = guest.received();
  assert.deepEqual([request!.op, request!.targetPort, request!.sourcePort >= 2 ** 30], [VsockOp.request, 52, true]);
  const ports = { sourcePort: 52, targetPort: request!.sourcePort };
  guest.send({ ...ports, op: VsockOp.response });
  assert.equal(stream.got, `OK ${request!.sourcePort}\n`);
  assert.deepEqual([guest.received().map((p) => p.payload), stream.paused], [['early'], false]);
  guest.send(ports, 'answer');
  stream.flush();
  guest.send({ ...ports, op: VsockOp.creditRequest });
  assert.equal(guest.received()[0]!.forwarded, 6, 'the greeting is no data of the guest');
  stream.events.closed();
  assert.deepEqual(guest.received().map((p) => [p.op, p.flags]), [[VsockOp.shutdown, 3]]); // biome-ignore format: one line
  guest.send({ ...ports, op: VsockOp.reset });
  assert.equal(io.size, 0);
  for (const line of ['GET / HTTP/1.1\r\n', 'CONNECT 99999999999\n', 'CONNECT 1', 'x'.repeat(100)]) {
    const bad = knock()!;
    bad.events.data(bytesOf(line));
    if (line === 'CONNECT 1') bad.events.end();
    assert.ok(bad.gone, line);
  }
  assert.equal(io.size, 0);
  const refused = knock()!;
  refused.events.data(bytesOf('CONNECT 1\n'));
  const [asked] = guest.received();
  guest.send({ sourcePort: 1, targetPort: asked!.sourcePort, op: VsockOp.reset });
  assert.ok(refused.gone);
});

test('neither side sends more than the other has room for', () => {
  const { rig, connects } = host();
  const guest = driver(rig, 4096);
  guest.offer(8);
  guest.send({ op: VsockOp.request, bufferSize: 100 });
  const { stream } = connects[0]!;
  stream.events.connected();
  guest.received();
  stream.events.data(new Uint8Array(150).fill(65));
  assert.equal(guest.received().reduce((n, p) => n + p.length, 0), 100); // biome-ignore format: one line
  guest.send({ op: VsockOp.creditUpdate, bufferSize: 100, forwarded: 100 });
  assert.equal(guest.received().reduce((n, p) => n + p.length, 0), 50); // biome-ignore format: one line
  stream.events.data(new Uint8Array(200_000));
  assert.equal(stream.paused, true);
  // A guest that sends more than was offered is cut off.
  let sent = 0;
  while (!stream.gone && sent < 1 << 20) {
    guest.send({ forwarded: 150, bufferSize: 100 }, 'y'.repeat(4096));
    sent += 4096;
    guest.offer(1);
  }
  assert.ok(sent > 200_000 && sent <= 300_000, `${sent}`);
});

test('whatever a guest sends, its host answers within limits and throws nothing', (t) => {
  const seed = Number(process.env['SEED'] ?? 1);
  t.diagnostic(`SEED=${seed}`);
  const random = seeded(seed);
  for (let round = 0; round < 12; round++) {
    const { rig, io, connects, knock, timers } = host();
    const guest = driver(rig, [4096, 44, 60, 20][round % 4]!);
    const knocked: FakeStream[] = [];
    for (let n = 0; n < 400; n++) {
      const h: Partial<VsockHeader> = {
        op: random(9), sourcePort: random(3) ? random(4) : random(2 ** 32), targetPort: random(4) ? 80 + random(3) : 2 ** 30 + random(4), flags: random(5),
        bufferSize: random(3) ? 65536 : random(2 ** 32), forwarded: random(2) ? 0 : random(2 ** 32), type: random(8) ? 1 : random(4),
        ...(random(5) ? {} : { length: random(2 ** 32) }), ...(random(9) ? {} : { sourceCid: BigInt(random(5)) }),
      }; // biome-ignore format: one object
      guest.send(h, 'z'.repeat(random(3) ? 0 : random(500)));
      if (random(3) === 0) guest.offer(1 + random(3));
      const all = [...connects.map((c) => c.stream), ...knocked].filter((s) => !s.gone);
      const stream = all[random(all.length + 1)];
      if (stream) {
        const act = random(6);
        if (act === 0) stream.events.connected();
        else if (act === 1) stream.events.data(new Uint8Array(1 + random(3000)));
        else if (act === 2) stream.flush();
        else if (act === 3 && random(4) === 0) stream.events.end();
        else if (act === 4 && random(4) === 0) {
          stream.events.closed();
          stream.gone = true;
        }
      }
      if (random(10) === 0) {
        const s = knock();
        if (s) {
          knocked.push(s);
          s.events.data(bytesOf(random(3) ? `CONNECT ${random(4)}\n` : 'NO\n'));
        }
      }
      if (random(40) === 0) timers.splice(0).forEach((f) => f());
      if (random(150) === 0) rig.start();
    }
    assert.ok(io.size <= 256);
    assert.equal(rig.core.inFlight, 0);
    io.reset();
    assert.equal(io.size, 0);
  }
});
