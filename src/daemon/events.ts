// Who wants which events, and their delivery. libvirt's remote protocol, version 1: event ids with callback ids.

import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { eventMessages } from '../rpc/libvirt/events.ts';
import type { BodyOf } from '../rpc/libvirt/procedure.ts';
import { qemu, remote } from '../rpc/libvirt/programs.ts';
import type { Domain, Network, NodeDevice, Secret, StoragePool } from '../rpc/libvirt/types.ts';
import type { ServerConnection } from '../rpc/server.ts';

type MessageName = keyof typeof eventMessages;
type Body<M extends MessageName> = BodyOf<(typeof eventMessages)[M]>;
type WithoutCallback<B> = B extends { readonly callbackId: number } ? Omit<B, 'callbackId'> : B;

/** The message of each domain event id, and whether its fields are inside of `msg`. */
const domainMessages = [
  ['domainEventCallbackLifecycle', 'msg'],
  ['domainEventCallbackReboot', 'msg'],
  ['domainEventCallbackRtcChange', 'msg'],
  ['domainEventCallbackWatchdog', 'msg'],
  ['domainEventCallbackIoError', 'msg'],
  ['domainEventCallbackGraphics', 'msg'],
  ['domainEventCallbackIoErrorReason', 'msg'],
  ['domainEventCallbackControlError', 'msg'],
  ['domainEventCallbackBlockJob', 'msg'],
  ['domainEventCallbackDiskChange', 'msg'],
  ['domainEventCallbackTrayChange', 'msg'],
  ['domainEventCallbackPmwakeup', 'msg'],
  ['domainEventCallbackPmsuspend', 'msg'],
  ['domainEventCallbackBalloonChange', 'msg'],
  ['domainEventCallbackPmsuspendDisk', 'msg'],
  ['domainEventCallbackDeviceRemoved', 'msg'],
  ['domainEventBlockJob2', 'flat'],
  ['domainEventCallbackTunable', 'flat'],
  ['domainEventCallbackAgentLifecycle', 'flat'],
  ['domainEventCallbackDeviceAdded', 'flat'],
  ['domainEventCallbackMigrationIteration', 'flat'],
  ['domainEventCallbackJobCompleted', 'flat'],
  ['domainEventCallbackDeviceRemovalFailed', 'flat'],
  ['domainEventCallbackMetadataChange', 'flat'],
  ['domainEventBlockThreshold', 'flat'],
  ['domainEventMemoryFailure', 'flat'],
  ['domainEventMemoryDeviceSizeChange', 'flat'],
] as const satisfies readonly (readonly [MessageName, 'msg' | 'flat'])[];

type Kind = 'domain' | 'network' | 'pool' | 'nodeDevice' | 'secret' | 'monitor';

interface Registration {
  readonly connection: ServerConnection;
  readonly kind: Kind;
  readonly callbackId: number;
  readonly eventId: number;
  /** UUID or name of the only object that is meant. */
  readonly only: string | undefined;
  /** Of monitor events: the name, or a pattern. */
  readonly pattern?: RegExp | undefined;
}

export class Events {
  readonly #registrations = new Map<ServerConnection, Map<number, Registration>>();
  #nextId = 0;

  register(
    connection: ServerConnection,
    kind: Kind,
    eventId: number,
    only: string | undefined,
    pattern?: RegExp,
  ): { callbackId: number } {
    const most = { domain: domainMessages.length, network: 1, pool: 2, nodeDevice: 2, secret: 2, monitor: 1 }[kind];
    if (eventId < 0 || eventId >= most) throw libvirtError('invalidArg', 'remote', `unsupported ${kind} event ID ${eventId}`);
    const callbackId = this.#nextId++;
    const list = this.#registrations.get(connection) ?? new Map<number, Registration>();
    this.#registrations.set(connection, list);
    list.set(callbackId, { connection, kind, callbackId, eventId, only, pattern });
    return { callbackId };
  }
  deregister(connection: ServerConnection, kind: Kind, callbackId: number): void {
    const list = this.#registrations.get(connection);
    if (list?.get(callbackId)?.kind !== kind) {
      throw libvirtError('invalidArg', 'remote', `${kind} event callback ${callbackId} not registered`);
    }
    list.delete(callbackId);
  }
  /** The connection is gone. */
  forget(connection: ServerConnection): void {
    this.#registrations.delete(connection);
  }
  #send<M extends MessageName>(to: Registration, name: M, body: WithoutCallback<Body<M>>): void {
    to.connection.notify(remote, name, { callbackId: to.callbackId, ...body } as unknown as Body<M>);
  }
  *#wanting(kind: Kind, eventId: number, object: string): Generator<Registration> {
    for (const list of [...this.#registrations.values()]) {
      for (const one of [...list.values()]) {
        if (one.kind === kind && one.eventId === eventId && (one.only === undefined || one.only === object)) yield one;
      }
    }
  }
  /** `fields` are those of the event's message besides the domain. */
  domain(eventId: number, dom: Domain, fields: Readonly<Record<string, unknown>> = {}): void {
    const [name, shape] = domainMessages[eventId]!;
    const { reason, ...inner } = fields;
    const suspends = eventId === 11 || eventId === 12 || eventId === 14;
    for (const to of this.#wanting('domain', eventId, dom.uuid)) {
      const body =
        shape === 'flat' ? { dom, ...fields } : suspends ? { reason, msg: { dom, ...inner } } : { msg: { dom, ...fields } };
      this.#send(to, name, body as never);
    }
  }
  network(net: Network, event: number, detail = 0): void {
    for (const to of this.#wanting('network', 0, net.uuid)) this.#send(to, 'networkEventLifecycle', { net, event, detail });
  }
  pool(pool: StoragePool, event: number, detail = 0): void {
    for (const to of this.#wanting('pool', 0, pool.uuid)) this.#send(to, 'storagePoolEventLifecycle', { pool, event, detail });
  }
  poolRefreshed(pool: StoragePool): void {
    for (const to of this.#wanting('pool', 1, pool.uuid)) this.#send(to, 'storagePoolEventRefresh', { pool });
  }
  nodeDevice(dev: NodeDevice, event: number): void {
    for (const to of this.#wanting('nodeDevice', 0, dev.name))
      this.#send(to, 'nodeDeviceEventLifecycle', { dev, event, detail: 0 });
  }
  secret(secret: Secret, event: number): void {
    for (const to of this.#wanting('secret', 0, secret.uuid))
      this.#send(to, 'secretEventLifecycle', { secret, event, detail: 0 });
  }
  secretValue(secret: Secret): void {
    for (const to of this.#wanting('secret', 1, secret.uuid)) this.#send(to, 'secretEventValueChanged', { secret });
  }
  /** An event of the emulator's monitor, for `virsh qemu-monitor-event`. */
  monitor(dom: Domain, event: string, seconds: number, micros: number, details: string | undefined): void {
    for (const to of this.#wanting('monitor', 0, dom.uuid)) {
      if (to.pattern !== undefined && !to.pattern.test(event)) continue;
      const body = { callbackId: to.callbackId, dom, event, seconds: BigInt(seconds), micros, details };
      to.connection.notify(qemu, 'domainMonitorEvent', body);
    }
  }
}
