// Options of `nonroot-system-x86_64` that make devices, back-ends and objects, in their JSON and `key=value` forms (QEMU 7.2, "System
// Emulation", section "Invocation").

import { propertiesOf } from '../machine/device-tree.ts';
import type { AnyDeviceType, DeviceConfig } from '../machine/device-type.ts';
import { allDeviceTypes, findDeviceType } from '../machine/device-types.ts';
import { readProperties } from '../machine/properties.ts';
import { optionMap, structured } from '../monitor/keyval.ts';
import { netdevJson, netdevOptions } from '../monitor/netdevs.ts';
import { objectOptions, objectTypes } from '../monitor/qom/objects.ts';
import { isObject, type Json, parseJson } from '../rpc/qmp/json.ts';
import { does, isHelp, parameters, type SystemOption } from './system-option.ts';
import { oneOf, Refused, type Settings } from './system-settings.ts';

type JsonObject = { readonly [name: string]: Json };

/** Devices by category, each on a line, as QEMU lists them. */
function deviceHelp(): string {
  const types = allDeviceTypes();
  const categories = [...new Set(types.map((t) => t.category))].sort();
  return categories
    .map((category) => {
      const rows = types
        .filter((t) => t.category === category && t.userCreatable !== false)
        .map((t) => {
          const alias = t.aliases?.[0] === undefined ? '' : `, alias "${t.aliases[0]}"`;
          return `name "${t.name}"${t.bus === 'System' ? '' : `, bus ${t.bus}`}${alias}${t.description ? `, desc "${t.description}"` : ''}\n`;
        });
      return rows.length === 0 ? '' : `${category} devices:\n${rows.join('')}`;
    })
    .filter((block) => block !== '')
    .join('\n');
}
/** A type's properties, sorted, as QEMU lists them. */
function typeHelp(type: AnyDeviceType): string {
  const rows = Object.entries(propertiesOf(type))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, p]) => {
      const left = `  ${name}=<${p.type}>`.padEnd(26);
      const otherwise = p.default === undefined ? '' : ` (default: ${JSON.stringify(p.default)})`;
      return `${left} - ${p.description}${otherwise}\n`;
    });
  return `${type.name} options:\n${rows.join('')}`;
}

function device(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return deviceHelp();
  const given = text.startsWith('{') ? structured('-device', text, 'driver') : Object.fromEntries(optionMap(text, 'driver'));
  const { driver } = given;
  if (typeof driver !== 'string') throw new Refused(`-device ${text}: driver is missing`);
  const type = findDeviceType(driver);
  if (!type || type.userCreatable === false) throw new Refused(`-device ${driver}: not supported`);
  if (Object.hasOwn(given, 'help') || Object.hasOwn(given, '?')) return typeHelp(type);
  addDevice(s, { ...given, driver }, text);
}
/** Checks a device's properties and puts it into the list. */
export function addDevice(s: Settings, config: DeviceConfig, text: string): void {
  const { driver, id: _, bus: __, ...given } = config;
  const table = propertiesOf(findDeviceType(driver)!);
  for (const name of Object.keys(given))
    if (!Object.hasOwn(table, name)) throw new Refused(`-device ${driver} ${name}: not supported`);
  try {
    readProperties(driver, table, given);
  } catch (error) {
    throw new Refused(`-device ${text}: ${(error as Error).message}`);
  }
  s.devices.push(config);
}

function objectOption(s: Settings, text: string): string | undefined {
  if (isHelp(text))
    return `List of user creatable objects:\n${Object.keys(objectTypes)
      .map((t) => `  ${t}\n`)
      .join('')}`;
  const raw = structured('-object', text, 'qom-type');
  const type = raw['qom-type'];
  if (typeof type !== 'string' || !Object.hasOwn(objectTypes, type)) throw new Refused(`-object ${String(type)}: not supported`);
  if (Object.hasOwn(raw, 'help'))
    return `${type} options:\n${objectTypes[type]!.properties.map((p) => `  ${p.name}=<${p.type}>\n`).join('')}`;
  const object = text.startsWith('{') ? raw : (objectOptions.coerce(raw) as JsonObject);
  try {
    objectOptions.check(object, '');
  } catch (error) {
    throw new Refused(`-object ${text}: ${(error as Error).message}`);
  }
  s.objects.push(object);
}

const netdevKinds = ['socket', 'stream', 'dgram', 'tap', 'user'];

function netdev(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return `Available netdev backend types:\n${netdevKinds.map((k) => `${k}\n`).join('')}`;
  s.netdevs.push(netdevOf('-netdev', text));
}
function netdevOf(option: string, text: string): JsonObject {
  const given = text.startsWith('{') ? parse(option, text) : netdevJson(text);
  const type = String(given['type']);
  if (!netdevKinds.includes(type)) throw new Refused(`${option} ${type}: not supported; accepted: ${netdevKinds.join(', ')}`);
  try {
    netdevOptions.check(given, '');
  } catch (error) {
    throw new Refused(`${option} ${text}: ${(error as Error).message}`);
  }
  return given;
}
function parse(option: string, text: string): JsonObject {
  try {
    const value = parseJson(text);
    if (isObject(value)) return value;
  } catch (error) {
    throw new Refused(`${option} ${text}: ${error instanceof Error ? error.message : String(error)}`);
  }
  throw new Refused(`${option} ${text}: accepted is a JSON object`);
}

/** A board's card where nobody names one. */
const boardCard = (s: Settings): string =>
  s.machine.board === 'pc' ? 'e1000' : s.machine.board === 'q35' ? 'e1000e' : 'virtio-net-device';

/** `-nic KIND,model=…,mac=…,…`: a back-end and its card in one. */
function addNic(s: Settings, text: string, option = '-nic'): void {
  const map = optionMap(text, 'type');
  const id = map.get('id') ?? `nic${s.netdevs.length}`;
  const rest = text
    .split(/(?<!,),(?!,)/)
    .filter((item) => !/^(model|mac|macaddr|id|addr)=/.test(item))
    .join(',');
  s.netdevs.push(netdevOf(option, `${rest},id=${id}`));
  addCard(s, map, id, `${option} ${text}`);
}
function addCard(s: Settings, map: ReadonlyMap<string, string>, netdev: string | undefined, text: string): void {
  const model = map.get('model') ?? boardCard(s);
  const driver = model === 'virtio' ? 'virtio-net-pci' : model;
  if (!findDeviceType(driver)) throw new Refused(`${text.split(' ')[0]} model=${model}: not supported`);
  const mac = map.get('mac') ?? map.get('macaddr');
  const addr = map.get('addr');
  const config = {
    ...(netdev === undefined ? {} : { netdev }),
    ...(mac === undefined ? {} : { mac }),
    ...(addr === undefined ? {} : { addr }),
  };
  addDevice(s, { driver, ...config }, text);
}

/** `-net nic,…` and `-net KIND,…`: a card and a back-end that belong together. */
function addOld(s: Settings): void {
  const kind = (text: string): string => optionMap(text, 'type').get('type') ?? '';
  const cards = s.nets.filter((text) => kind(text) === 'nic');
  const others = s.nets.filter((text) => kind(text) !== 'nic');
  for (const list of [cards, others])
    if (list.length > 1)
      throw new Refused(`-net ${list[1]}: not supported; one card and one back-end are accepted, -nic takes more`);
  const [card] = cards;
  const [other] = others;
  if (other !== undefined) {
    const id = optionMap(other, 'type').get('name') ?? 'net0';
    const rest = other
      .split(/(?<!,),(?!,)/)
      .filter((item) => !/^(name|id)=/.test(item))
      .join(',');
    s.netdevs.push(netdevOf('-net', `${rest},id=${id}`));
  }
  if (card === undefined) return;
  const map = optionMap(card, 'type');
  for (const key of map.keys())
    if (!['type', 'model', 'macaddr', 'addr', 'netdev', 'name'].includes(key))
      throw new Refused(`-net nic,${key}: not supported`);
  addCard(s, map, map.get('netdev') ?? (other === undefined ? undefined : String(s.netdevs.at(-1)!['id'])), `-net ${card}`);
}

/**
 * The cards of `-nic` and `-net`, or, where nothing is said of networks, QEMU's: a user-mode network on the board's card. They come before
 * the devices of `-device`, as with QEMU.
 */
export function addNetwork(s: Settings): void {
  const later = s.devices;
  s.devices = [];
  const usual = ['pc', 'q35'].includes(s.machine.board) && !s.nodefaults && s.netdevs.length === 0;
  if (s.nics.length === 0 && s.nets.length === 0 && usual) addNic(s, 'user');
  if (!s.nets.includes('none')) addOld(s);
  for (const nic of s.nics) if (nic !== 'none') addNic(s, nic);
  s.devices = [...s.devices, ...later];
}

export const deviceOptions: readonly SystemOption[] = [
  {
    names: ['-device'],
    value: 'DRIVER[,id=ID][,bus=BUS][,PROPERTY=VALUE]|JSON',
    help: 'add a device; -device help lists them, -device DRIVER,help its properties',
    group: 'device',
    parameters: [],
    apply: device,
  },
  {
    names: ['-object'],
    value: 'TYPE,id=ID[,PROPERTY=VALUE]|JSON',
    help: 'add an object; -object help lists them',
    group: 'object',
    parameters: [],
    apply: objectOption,
  },
  {
    names: ['-netdev'],
    value: 'KIND,id=ID[,PROPERTY=VALUE]|JSON',
    help: `add a network back-end: ${netdevKinds.join(', ')}`,
    group: 'netdev',
    parameters: [],
    apply: netdev,
  },
  {
    names: ['-nic'],
    value: 'KIND[,model=DRIVER][,mac=ADDRESS][,PROPERTY=VALUE]|none',
    help: 'add a network back-end and its card (default: user, where no network is named)',
    group: 'nic',
    parameters: [],
    apply: does((s, v) => void s.nics.push(v)),
  },
  {
    names: ['-net'],
    value: 'nic[,model=DRIVER][,macaddr=ADDRESS]|KIND[,PROPERTY=VALUE]|none',
    help: 'a network card and its back-end, the old way; -nic is shorter',
    group: 'net',
    parameters: [],
    apply: does((s, v) => void s.nets.push(v)),
  },
  {
    names: ['-audiodev'],
    value: 'none,id=ID|JSON',
    help: 'where sound goes: nowhere',
    group: 'audiodev',
    parameters: parameters({ string: 'driver id' }),
    apply: does((_, text) => {
      const given = structured('-audiodev', text, 'driver');
      oneOf('-audiodev ', String(given['driver']), ['none']);
    }),
  },
];
