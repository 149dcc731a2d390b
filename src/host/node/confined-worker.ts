// The process of a confined machine (confined.ts): it asks what the machine is made of, starts anew so that it reaches nothing else, asks again, and
// makes the machine. Descriptor 3, which its command line names, leads to the process that made it; with that one it ends.

import { Socket } from 'node:net';
import type { MachineOptions } from '../../api/machine.ts';
import { parseArguments } from '../../cli/args.ts';
import { runOptions } from '../../cli/run.ts';
import { deviceChoices, filesOfDevices } from '../../cli/run-devices.ts';
import { type Grant, keptByNothing } from '../../cli/sandbox.ts';
import { defaultImage } from '../../images/catalog.ts';
import { deviceArguments, Machine, restoreHere } from './api.ts';
import { nodeHost } from './cli-host.ts';
import { confine, startsAgain } from './confine.ts';
import { prepareToConfine } from './confinement.ts';
import { frozenIn } from './frozen-memory.ts';
import type { FrozenMachine } from './machine.ts';
import {
  Descriptor,
  type FromMachine,
  methods,
  receive,
  type SentFile,
  type SentFrozen,
  type SentOptions,
  send,
  type ToMachine,
} from './machine-channel.ts';
import { writeSnapshot } from './snapshot-file.ts';

const STATUS_EVERY = 50;

const socket = new Socket({ fd: Descriptor.channel });
const tell = (message: FromMachine): Promise<void> => send(socket, message);
const fail = async (error: unknown): Promise<never> => {
  await tell({ kind: 'failed', message: (error as Error).message });
  socket.end(() => process.exit(1));
  return new Promise(() => {});
};

let hear: (message: ToMachine) => void = () => {};
receive(socket, (message) => hear(message as ToMachine));
socket.on('close', () => process.exit(1));

/** Asks for the options, and for what the machine goes on from. */
function options(): Promise<ToMachine & { readonly kind: 'options' }> {
  return new Promise((resolve) => {
    hear = (message) => {
      if (message.kind === 'options') resolve(message);
    };
    void tell({ kind: 'hello' });
  });
}

/** What the machine's process is to reach. An image is there afterwards. */
async function grantsOf(o: SentOptions): Promise<Grant[]> {
  const host = nodeHost('api');
  if (o.kernel === undefined || o.image !== undefined) await host.image(o.image ?? defaultImage.name, () => {});
  const files = [o.kernel, o.initrd].filter((file) => typeof file === 'string');
  return [
    ...files.map((path): Grant => ({ path, access: 'read' })),
    ...(await filesOfDevices(deviceChoices(parseArguments(runOptions, 0, deviceArguments(o))), host.disks)),
    { path: '/dev/kvm', access: 'write' },
  ];
}

const bytesOf = (file: SentFile | undefined): string | Uint8Array | undefined =>
  typeof file === 'object' ? Buffer.from(file.base64, 'base64') : file;

function received({ state, offset, length }: SentFrozen): FrozenMachine {
  return { state: Buffer.from(state, 'base64'), memory: frozenIn(Descriptor.memory, offset, length, 'the snapshot') };
}

/** Writes a snapshot to the file that is there for it. */
async function takeSnapshot(machine: Machine): Promise<void> {
  const snapshot = await machine.snapshot();
  try {
    writeSnapshot(Descriptor.snapshots, snapshot.frozen, '');
  } finally {
    snapshot.close();
  }
}

async function run(): Promise<void> {
  if (startsAgain()) {
    const { options: o } = await options();
    await prepareToConfine(() => grantsOf(o));
  } else await prepareToConfine(async () => []);
  const { options: asked, frozen } = await options();
  const { kernel: k, initrd: i, ...rest } = asked;
  const [kernel, initrd] = [bytesOf(k), bytesOf(i)];
  const net = rest.net === 'user' || (rest.publish?.length ?? 0) > 0;
  confine({ ...keptByNothing, network: net });
  const o: MachineOptions = {
    ...rest,
    ...(kernel !== undefined && { kernel }),
    ...(initrd !== undefined && { initrd }),
    report: (device, message) => void tell({ kind: 'report', device, message }),
  };
  const from = frozen && received(frozen);
  const machine = from ? await restoreHere(from, o) : await Machine.create(o);
  from?.memory.close();
  const state = (): { status: typeof machine.status; accel: typeof machine.accel } => ({
    status: machine.status,
    accel: machine.accel,
  });
  hear = (message) => {
    if (message.kind === 'input') machine.console.write(Buffer.from(message.base64, 'base64'));
    if (message.kind !== 'call' || !methods.includes(message.method)) return;
    const { id, method, args } = message;
    void (async () => {
      const value =
        method === 'snapshot'
          ? await takeSnapshot(machine)
          : await (machine[method] as (...args: readonly unknown[]) => unknown)(...args);
      return tell({ kind: 'answer', id, value: value ?? null, ...state() });
    })().catch((error: Error) => tell({ kind: 'answer', id, error: error.message, ...state() }));
  };
  machine.on('reset', () => void tell({ kind: 'reset', ...state() }));
  machine.ready.then(
    () => tell({ kind: 'ready' }),
    () => {},
  );
  let said = machine.status;
  const timer = setInterval(() => {
    if (machine.status !== said) void tell({ kind: 'status', ...state() });
    said = machine.status;
  }, STATUS_EVERY);
  void tell({ kind: 'made', ...state() });
  for await (const bytes of machine.console) await tell({ kind: 'console', base64: Buffer.from(bytes).toString('base64') });
  const end = await machine.ended;
  clearInterval(timer);
  await tell({ kind: 'ended', end, ...state() });
  socket.end(() => process.exit(0));
}
run().catch(fail);
