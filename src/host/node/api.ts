// The TypeScript API in Node: what `import { Machine } from 'nonroot'` gives.

import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  type ApiHost,
  Machine as ApiMachine,
  Snapshot as ApiSnapshot,
  type DiskOptions,
  type Frozen,
  type MachineOptions,
} from '../../api/machine.ts';
import { AUTO, chooseAccel } from '../../cli/accel.ts';
import { parseArguments } from '../../cli/args.ts';
import { runOptions } from '../../cli/run.ts';
import { deviceChoices, openDevices } from '../../cli/run-devices.ts';
import { defaultImage } from '../../images/catalog.ts';
import { nodeHost } from './cli-host.ts';
import { type AnyMachine, createConfined } from './confined.ts';
import { type FrozenMachine, NodeMachine } from './machine.ts';
import { readSnapshot, writeSnapshot } from './snapshot-file.ts';
import { type ThreadAhead, threadAhead } from './vcpu-thread.ts';

export type { CommandResult } from '../../api/commands.ts';
export type { Console } from '../../api/console.ts';
export type { DiskOptions, MachineEvents, MachineOptions } from '../../api/machine.ts';
export type { MachineEnd } from '../../machine/running.ts';

/** ms after which the next thread is made ready, so that the one that was goes first. */
const SPARE_AFTER = 300;

function apiHost(): ApiHost<FrozenMachine> {
  const host = nodeHost('api');
  /** A thread that is ready for the next machine: making one takes longer than a restored guest needs to go on. */
  let spare: ThreadAhead | undefined;
  return {
    machine(setup) {
      const ahead = setup.config.accel === 'kvm' ? undefined : spare;
      if (ahead) spare = undefined;
      setTimeout(() => {
        spare ??= threadAhead();
      }, SPARE_AFTER).unref();
      return new NodeMachine(setup, ahead);
    },
    async image(name) {
      return host.image(name ?? defaultImage.name, () => {});
    },
    readFile: (path) => host.readFile(path),
    accel(wanted) {
      const { note: _, ...choice } = chooseAccel(wanted === 'auto' ? AUTO : [wanted], (trial) => host.kvm(trial));
      return choice;
    },
    devices: (o, ours) =>
      openDevices(deviceChoices(parseArguments(runOptions, 0, deviceArguments(o))), host, { command: false, ours }),
    base64: (bytes) => Buffer.from(bytes).toString('base64'),
    fromBase64: (text) => Buffer.from(text, 'base64'),
    sleep: (ms) => sleep(ms, undefined, { ref: false }),
    async save(frozen, note, path) {
      const fd = openSync(path, 'w');
      try {
        writeSnapshot(fd, frozen, note);
      } finally {
        closeSync(fd);
      }
    },
    async load(path) {
      const fd = openSync(path, 'r');
      try {
        return readSnapshot(fd, path);
      } catch (error) {
        closeSync(fd);
        throw error;
      }
    },
  };
}

/** Disks, network and folders as `nonroot run` is told of them, so that both mean the same. */
export function deviceArguments(o: Pick<MachineOptions, 'disks' | 'net' | 'publish' | 'shares'>): string[] {
  const disk = (d: string | DiskOptions): string => {
    const { path, format, readOnly, snapshot }: DiskOptions = typeof d === 'string' ? { path: d } : d;
    if (path.includes(',')) throw new Error(`Cannot use disk ${path}: accepted are paths without commas`);
    return [path, ...(format ? [`format=${format}`] : []), ...(readOnly ? ['ro'] : []), ...(snapshot ? ['snapshot'] : [])].join(
      ',',
    );
  };
  return [
    ...(o.disks ?? []).flatMap((d) => ['--disk', disk(d)]),
    ...(o.net === undefined ? [] : ['--net', o.net]),
    ...(o.publish ?? []).flatMap((p) => ['--publish', p]),
    ...(o.shares ?? []).flatMap((s) => ['--share', s]),
  ];
}

const host = apiHost();

/** A machine of this process, or with `confine` of one of its own. See `MachineOptions` for what it is made of. */
export type Machine = AnyMachine;
export type Snapshot = ApiSnapshot<FrozenMachine>;
export type { Frozen };

export const Machine = {
  /** Makes a machine and starts it. Rejects, with one line, for options that can't be used. */
  create: (o: MachineOptions = {}): Promise<Machine> => (o.confine ? createConfined(host, o) : ApiMachine.create(host, o)),
  /** A machine that goes on from a snapshot, or from the file that a snapshot was saved to. */
  async restore(snapshot: Snapshot | string): Promise<Machine> {
    if (typeof snapshot !== 'string') return goOn(snapshot);
    const { frozen, note } = await host.load(snapshot);
    try {
      return await goOn(new ApiSnapshot(host, frozen, JSON.parse(note) as MachineOptions));
    } finally {
      frozen.memory.close();
    }
  },
};
const goOn = (snapshot: Snapshot): Promise<Machine> =>
  snapshot.options.confine ? createConfined(host, snapshot.options, snapshot.frozen) : ApiMachine.restore(host, snapshot);
/** A machine of this process that goes on from there. */
export const restoreHere = (frozen: FrozenMachine, options: MachineOptions): Promise<Machine> =>
  ApiMachine.restore(host, new ApiSnapshot(host, frozen, options));
