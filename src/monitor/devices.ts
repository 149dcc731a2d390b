// A machine's devices as monitors see them: objects with properties, found by id or path.

import type { Plugged } from '../machine/device-tree.ts';
import { propertiesOf, propertyOf } from '../machine/device-tree.ts';
import { allDeviceTypes } from '../machine/device-types.ts';
import type { RunningMachine } from '../machine/running.ts';
import type { Json } from '../rpc/qmp/json.ts';
import { type QomNode, type QomProperty, qomNode, qomValue } from './qom/tree.ts';
import type { DeviceInfo } from './qom/types.ts';

/** The table of device types as the object model has it. */
export const deviceInfos = (): readonly DeviceInfo[] =>
  allDeviceTypes().map((type) => ({
    name: type.name,
    parents: type.parents ?? [],
    properties: Object.entries(propertiesOf(type)).map(([name, p]) => ({
      name,
      type: p.type,
      description: p.description || undefined,
      'default-value': p.default,
    })),
  }));

const plain = (value: unknown): Json =>
  value === undefined
    ? ''
    : Array.isArray(value)
      ? value.map((b) => Number(b).toString(16).padStart(2, '0')).join(':')
      : (value as Json);

/** The object of one device, with properties that others have for it. */
function deviceNode(device: Plugged, hotplugged: boolean, more: readonly QomProperty[]): QomNode {
  const table = propertiesOf(device.type);
  const own: QomProperty[] = Object.entries(table).map(([name, p]) => qomValue(name, p.type, plain(propertyOf(device, name))));
  return qomNode(device.type.name, [
    qomValue('realized', 'bool', true),
    qomValue('hotplugged', 'bool', hotplugged),
    qomValue('hotpluggable', 'bool', device.type.hotplug !== false),
    qomValue('parent_bus', 'link<bus>', device.bus.name),
    ...own,
    ...more,
    ...Object.entries(device.io?.properties ?? {}).map(([name, p]): QomProperty => {
      const set = p.set?.bind(p);
      return { name, type: p.type, get: () => p.get() as Json, ...(set ? { set } : {}) };
    }),
  ]);
}

/** Children of `/machine/peripheral` or `/machine/peripheral-anon`. */
export function deviceNodes(
  machine: RunningMachine | undefined,
  folder: string,
  more: (device: Plugged) => readonly QomProperty[] = () => [],
): (readonly [string, QomNode])[] {
  const prefix = `/machine/${folder}/`;
  return (machine?.devices.list() ?? [])
    .filter((d) => d.path.startsWith(prefix))
    .map((d) => [d.path.slice(prefix.length), deviceNode(d, d.hotplugged, more(d))] as const);
}
