// The I/O side of the SCSI host device: commands to the units of its bus, task management, events.
// Virtual I/O Device (VIRTIO) 1.2, section 5.6.6.
import type { Direct } from '../direct.ts';
import { perform } from '../scsi/perform.ts';
import { big, type MediumStore } from '../scsi/plan.ts';
import { fixedSense } from '../scsi/sense.ts';
import type { ScsiTarget } from '../scsi/target.ts';
import type { Chain } from './chain.ts';
import type { VirtioCore } from './core.ts';
import {
  CONTROL_QUEUE,
  EVENT_QUEUE,
  FIRST_REQUEST_QUEUE,
  lunField,
  parseLun,
  REQUEST_BYTES,
  RESPONSE_BYTES,
  Response,
  ScsiFeature,
  scsiEvent,
  scsiResponse,
} from './scsi.ts';

/** A logical unit. */
export interface ScsiUnit {
  readonly target: number;
  readonly lun: number;
  readonly device: ScsiTarget;
  /** What is in the drive. */
  store(): MediumStore | undefined;
  /** Resolves when a request of the drive is held by an error. */
  held(): Promise<void>;
  /** Reads at the doorbell, on threads that can. */
  readonly direct: Direct;
}

const REPORT_LUNS = 0xa0;

/** For `VirtioModel.atOnce`: reads of units whose bytes are at hand. */
export function scsiReadAtOnce(units: readonly ScsiUnit[], chain: Chain, queue: number): number {
  if (queue < FIRST_REQUEST_QUEUE || chain.out.length < REQUEST_BYTES) return -1;
  const request = chain.out.bytes(0, REQUEST_BYTES);
  const place = parseLun(request);
  const unit = place && units.find((u) => u.target === place.target && u.lun === place.lun);
  const span = unit?.device.reads(request.subarray(19, 19 + 16));
  const room = chain.in.length - RESPONSE_BYTES;
  if (!span || span.length > room) return -1;
  const { offset, length } = span;
  if (!unit!.direct.read(offset, length, () => chain.in.range(RESPONSE_BYTES, length))) return -1;
  unit!.device.readDone();
  chain.in.written(RESPONSE_BYTES, length);
  chain.in.write(0, scsiResponse({ response: Response.ok, residual: room - length }));
  return RESPONSE_BYTES + length;
}

export class ScsiIo {
  readonly #core: VirtioCore;
  readonly #units: () => readonly ScsiUnit[];
  #active = 0;
  #idle: (() => void)[] = [];

  constructor(core: VirtioCore, queues: number, units: () => readonly ScsiUnit[]) {
    this.#core = core;
    this.#units = units;
    core.serve(CONTROL_QUEUE, () => this.#control());
    for (let n = 0; n < queues; n++) core.serve(FIRST_REQUEST_QUEUE + n, () => this.#work(FIRST_REQUEST_QUEUE + n));
  }
  async drain(): Promise<void> {
    if (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Tells the driver that a unit came or went. */
  plugged(unit: { readonly target: number; readonly lun: number }, there: boolean): void {
    if (this.#core.has(ScsiFeature.hotplug)) this.#event(1, unit, there ? 1 : 2);
  }
  /** The unit's medium or size changed; the sense code says what. */
  changed(unit: { readonly target: number; readonly lun: number }, asc: number, ascq: number): void {
    if (this.#core.has(ScsiFeature.change)) this.#event(3, unit, asc | (ascq << 8));
  }
  #event(event: number, unit: { readonly target: number; readonly lun: number }, reason: number): void {
    const [chain] = this.#core.take(EVENT_QUEUE, 1);
    // A driver that gave no buffer finds out by itself.
    if (chain)
      this.#core.give(EVENT_QUEUE, [[chain, chain.in.write(0, scsiEvent(event, lunField(unit.target, unit.lun), reason))]]);
  }

  #work(n: number): void {
    for (let chains = this.#core.take(n); chains.length > 0; chains = this.#core.take(n)) {
      for (const chain of chains) {
        this.#active++;
        void this.#command(chain).then((written) => {
          this.#core.give(n, [[chain, written]]);
          if (--this.#active === 0) for (const resolve of this.#idle.splice(0)) resolve();
        });
      }
    }
  }

  /** Carries out a command; how many bytes of the chain were written. Never rejects. */
  async #command(chain: Chain): Promise<number> {
    const answer = (bytes: Uint8Array, data = 0): number => {
      chain.in.write(0, bytes);
      return bytes.length + data;
    };
    if (chain.out.length < REQUEST_BYTES || chain.in.length < RESPONSE_BYTES) return 0;
    const request = chain.out.bytes(0, REQUEST_BYTES);
    const place = parseLun(request);
    const units = this.#units().filter((u) => u.target === place?.target);
    const first = units[0];
    if (!place || !first) return answer(scsiResponse({ response: Response.badTarget }));
    const cdb = request.subarray(19, 19 + 16);
    const room = chain.in.length - RESPONSE_BYTES;
    if (cdb[0] === REPORT_LUNS) {
      const list = units.map((u) => u.lun).sort((a, b) => a - b);
      const all = [
        ...big(8 * list.length, 4),
        0,
        0,
        0,
        0,
        ...list.flatMap((lun) => [...big(lun > 255 ? 0x4000 | lun : lun, 2), 0, 0, 0, 0, 0, 0]),
      ];
      const length = Math.min(all.length, room);
      chain.in.write(RESPONSE_BYTES, Uint8Array.from(all.slice(0, length)));
      return answer(scsiResponse({ response: Response.ok, residual: room - length }), length);
    }
    const unit = units.find((u) => u.lun === place.lun);
    const { device } = unit ?? first;
    const plan = this.#core.lock.run(() => device.plan(cdb, unit ? 0 : place.lun || 1));
    const buffers = {
      in: chain.in.range(RESPONSE_BYTES, room),
      out: chain.out.range(REQUEST_BYTES, chain.out.length - REQUEST_BYTES),
    };
    const result = await perform(plan, unit?.store(), buffers);
    this.#core.lock.run(() => device.finish(result.sense));
    const toGuest = plan.kind === 'in' || plan.kind === 'read';
    if (toGuest) chain.in.written(RESPONSE_BYTES, result.transferred);
    const asked = toGuest ? room : chain.out.length - REQUEST_BYTES;
    const { sense, status } = result;
    return answer(
      scsiResponse({
        response: Response.ok,
        status,
        residual: asked - result.transferred,
        ...(sense ? { sense: fixedSense(sense) } : {}),
      }),
      toGuest ? result.transferred : 0,
    );
  }

  #control(): void {
    for (const chain of this.#core.take(CONTROL_QUEUE, 64)) {
      const head = chain.out.bytes(0, 24);
      const type = head.length < 4 ? -1 : new DataView(head.buffer).getUint32(0, true);
      if (type === 0 && head.length === 24) {
        const place = parseLun(head.subarray(8, 16));
        const units = this.#units().filter((u) => u.target === place?.target);
        const unit = units.find((u) => u.lun === place?.lun);
        const response = units.length === 0 ? Response.badTarget : unit ? Response.complete : Response.incorrectLun;
        // Commands are not taken back: they end by themselves, before what the driver sends after a reset.
        if (unit && new DataView(head.buffer).getUint32(4, true) >= 4) this.#core.lock.run(() => unit.device.reset());
        this.#core.give(CONTROL_QUEUE, [[chain, chain.in.write(0, Uint8Array.of(response))]]);
      } else {
        // Asynchronous notifications: none are known.
        const answer = type === 1 || type === 2 ? [0, 0, 0, 0, Response.ok] : [Response.failure];
        this.#core.give(CONTROL_QUEUE, [[chain, chain.in.write(0, Uint8Array.from(answer))]]);
      }
    }
  }
}
