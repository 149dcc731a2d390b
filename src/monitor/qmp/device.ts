// QMP commands that add, remove and change devices and network back-ends. QEMU 7.2, qapi/qdev.json, qapi/net.json, qapi/machine.json.

import type { DeviceConfig } from '../../machine/device-type.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import { bool, int, object, optional, str } from '../../rpc/qmp/schema.ts';
import { netdevOptions } from '../netdevs.ts';
import { action, type QmpTable, query, unionAction } from './row.ts';

export const deviceCommands: QmpTable = {
  device_add: action({ driver: str, bus: optional(str), id: optional(str) }, (e, config) => e.deviceAdd(config as DeviceConfig), {
    open: true,
    features: ['json-cli', 'json-cli-hotplug'],
  }),
  device_del: action({ id: str }, async (e, { id }) => {
    if (!e.running.devices.find(id)) throw new QmpError(`Device '${id}' not found`, 'DeviceNotFound');
    await e.running.deviceDel(id);
  }),
  netdev_add: unionAction(netdevOptions, async (e, args) => {
    await e.netdevAdd(args as unknown as { readonly [name: string]: Json });
  }),
  netdev_del: action({ id: str }, (e, { id }) => e.netdevDel(id)),
  set_link: action({ name: str, up: bool }, (e, { name, up }) => e.setLink(name, up)),
  balloon: action({ value: int }, (e, { value }) => e.balloon().set(value)),
  'query-balloon': query({}, object('BalloonInfo', { actual: int }), (e) => ({ actual: e.balloon().actual() })),
};
