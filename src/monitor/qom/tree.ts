// The tree of objects that `qom-list`, `qom-get` and `qom-set` walk: the machine with its vCPUs and devices, the users' objects, the
// character devices. Made anew from what is there at each call. QEMU 7.2 "QEMU QMP Reference Manual", qapi/qom.json.

import type { Plugged } from '../../machine/device-tree.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import { deviceNodes } from '../devices.ts';
import type { Emulator } from '../emulator.ts';
import { CPU_SUFFIX } from './types.ts';
import type { UserObject } from './user-objects.ts';

export interface QomProperty {
  readonly name: string;
  readonly type: string;
  readonly get: () => Json | Promise<Json>;
  /** Absent where it cannot be changed. */
  readonly set?: (value: Json) => void | Promise<void>;
}
/** An object of the tree. */
export interface QomNode {
  readonly type: string;
  readonly properties: readonly QomProperty[];
  readonly children: ReadonlyMap<string, QomNode>;
}

const value = (name: string, type: string, json: Json): QomProperty => ({ name, type, get: () => json });
const node = (
  type: string,
  properties: readonly QomProperty[] = [],
  children: Iterable<readonly [string, QomNode]> = [],
): QomNode => ({
  type,
  properties: [value('type', 'string', type), ...properties],
  children: new Map(children),
});
const KIND: Readonly<Record<string, string>> = { boolean: 'bool', number: 'int', bigint: 'int', string: 'string' };
const plain = (values: { readonly [name: string]: Json }): QomProperty[] =>
  Object.entries(values).map(([name, json]) => value(name, KIND[typeof json] ?? 'any', json));

const pollingDefaults = { 'poll-max-ns': 32_768, 'poll-grow': 0, 'poll-shrink': 0 } as const;

/** How long an I/O thread polls: kept and told. The one I/O thread of this process waits for events without polling. */
function polling(e: Emulator, { id, type, values }: UserObject): QomProperty[] {
  if (type !== 'iothread') return [];
  return Object.entries(pollingDefaults).flatMap(([name, fallback]): QomProperty[] => {
    const set = (json: Json): void => {
      if (typeof json !== 'number' || json < 0) throw new QmpError(`Invalid parameter type for '${name}', expected: integer`);
      e.objects.set(id, name, json);
    };
    return [{ name, type: 'int', get: () => values[name] ?? fallback, set }];
  });
}

const properties = (e: Emulator, object: UserObject): QomProperty[] => {
  const own = polling(e, object);
  return [...plain(object.values).filter((one) => !own.some((other) => other.name === one.name)), ...own];
};

export class ObjectTree {
  readonly #e: Emulator;

  constructor(e: Emulator) {
    this.#e = e;
  }
  /** @throws QmpError where nothing has that path; a part of a path is enough where only one object ends in it */
  find(path: string): QomNode {
    const root = this.#root();
    const steps = path.split('/').filter((s) => s !== '');
    const walk = (from: QomNode, names: readonly string[]): QomNode | undefined =>
      names.reduce<QomNode | undefined>((at, name) => at?.children.get(name), from);
    const found = path.startsWith('/') ? [walk(root, steps)] : everywhere(root).map((from) => walk(from, steps));
    const hits = found.filter((n) => n !== undefined);
    if (hits.length > 1) throw new QmpError(`Path '${path}' is ambiguous`);
    if (hits.length === 0) throw new QmpError(`Device '${path}' not found`, 'DeviceNotFound');
    return hits[0]!;
  }
  property(path: string, name: string): QomProperty {
    const at = this.find(path);
    const found = at.properties.find((p) => p.name === name);
    if (!found) throw new QmpError(`Property '${at.type}.${name}' not found`);
    return found;
  }

  #root(): QomNode {
    const e = this.#e;
    return node('container', [], [
      ['machine', this.#machine()],
      ['objects', node('container', [], e.objects.list().map((o) => [o.id, node(o.type, properties(e, o))]))],
      ['chardevs', node('container', [], e.chardevs.list().map((c) => [c.id, node(`chardev-${c.options.kind}`)]))],
    ]); // biome-ignore format: a tree
  }
  #machine(): QomNode {
    const { config, cables } = this.#e;
    /** What went through a card's cable: ours, since QEMU does not count. */
    const counters = ({ values }: Plugged): QomProperty[] => {
      const cable = typeof values['netdev'] === 'string' ? cables.get(values['netdev']) : undefined;
      return cable ? [{ name: 'x-counters', type: 'NetCounters', get: () => ({ ...cable.counters }) }] : [];
    };
    const text = (name: string, v: string | undefined): QomProperty => value(name, 'string', v ?? '');
    return node(
      `${config.machine.name}-machine`,
      [
        text('kernel', config.kernel?.kernel),
        text('initrd', config.kernel?.initrd),
        text('append', config.kernel?.append),
        ...[...config.machineProperties].map(([name, v]) => {
          const is = v === 'on' ? true : v === 'off' ? false : undefined;
          return is === undefined ? value(name, 'string', v) : value(name, 'bool', is);
        }),
      ],
      [
        ['peripheral', node('container', [], deviceNodes(this.#e.machine, 'peripheral', counters))],
        ['peripheral-anon', node('container', [], deviceNodes(this.#e.machine, 'peripheral-anon', counters))],
        ['unattached', node('container', [], this.#cpus())],
      ],
    );
  }
  #cpus(): (readonly [string, QomNode])[] {
    const { config } = this.#e;
    if (config.machine.board === 'none') return [];
    return Array.from({ length: config.topology.cpus }, (_, n) => [
      `device[${n}]`,
      node(`${config.cpu.model}${CPU_SUFFIX}`, [
        value('realized', 'bool', true),
        value('hotplugged', 'bool', false),
        value('hotpluggable', 'bool', false),
        ...this.#e.cpuFeatures().map(([name, is]) => value(name, 'bool', is)),
      ]),
    ]);
  }
}

/** An object and all below it. */
const everywhere = (from: QomNode): QomNode[] => [from, ...[...from.children.values()].flatMap(everywhere)];

export { node as qomNode, value as qomValue };
