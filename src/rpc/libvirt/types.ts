// What libvirt's procedures are made of: references to objects, typed parameters and their limits. libvirt's remote protocol, version 1, as of 9.0.
import {
  array,
  arrayFixed,
  type Codec,
  char,
  double,
  flag,
  hyper,
  int,
  mapped,
  opaque,
  opaqueFixed,
  optional,
  string,
  struct,
  union,
  unsigned,
  unsignedHyper,
  type ValueOf,
} from '../xdr.ts';

/** Most elements of each kind of list, and most bytes of each kind of buffer. */
export const limits = {
  string: 4_194_304,
  cookie: 4_194_304,
  peek: 4_194_304,
  cpumap: 2048,
  cpumaps: 8_388_608,
  secret: 65_536,
  sasl: 65_536,
  /** Domains, networks, pools, volumes, interfaces, secrets, filters, bindings, ports, snapshots, checkpoints, vCPUs, I/O threads. */
  objects: 16_384,
  nodeDevices: 65_536,
  /** Parameters of most get and set procedures. */
  few: 16,
  /** Parameters of migration, save, jobs, perf, launch security. */
  more: 64,
} as const;

/** A string of up to 4 MiB. */
export const text = string(limits.string);
export const optionalText = optional(text);
/** Names of objects, up to the limit of a list. */
export const names = (max: number = limits.objects) => array(text, max);

/** As text: `8-4-4-4-12` lower-case hexadecimal digits. Upper case and missing hyphens are accepted when encoding. */
export const uuid: Codec<string> = mapped(
  opaqueFixed(16),
  (bytes) =>
    Array.from(bytes, (b) => b.toString(16).padStart(2, '0'))
      .join('')
      .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'),
  (value, w) => {
    const hex = value.replaceAll('-', '');
    if (!/^[0-9a-fA-F]{32}$/.test(hex)) w.fail(`'${value}', a UUID of 32 hexadecimal digits accepted`);
    return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
  },
);

/** `id` is -1 for a domain that does not run. */
export const domain = struct({ name: text, uuid, id: int });
export const network = struct({ name: text, uuid });
export const networkPort = struct({ net: network, uuid });
export const nwfilter = struct({ name: text, uuid });
export const nwfilterBinding = struct({ portDev: text, filterName: text });
export const iface = struct({ name: text, mac: text });
export const storagePool = struct({ name: text, uuid });
export const storageVol = struct({ pool: text, name: text, key: text });
export const nodeDevice = struct({ name: text });
/** `usageType`: 0 none, 1 volume, 2 ceph, 3 iscsi, 4 tls, 5 vtpm. */
export const secret = struct({ uuid, usageType: int, usageId: text });
export const domainSnapshot = struct({ name: text, dom: domain });
export const domainCheckpoint = struct({ name: text, dom: domain });

export type Domain = ValueOf<typeof domain>;
export type Network = ValueOf<typeof network>;
export type NetworkPort = ValueOf<typeof networkPort>;
export type Nwfilter = ValueOf<typeof nwfilter>;
export type NwfilterBinding = ValueOf<typeof nwfilterBinding>;
export type Interface = ValueOf<typeof iface>;
export type StoragePool = ValueOf<typeof storagePool>;
export type StorageVol = ValueOf<typeof storageVol>;
export type NodeDevice = ValueOf<typeof nodeDevice>;
export type Secret = ValueOf<typeof secret>;
export type DomainSnapshot = ValueOf<typeof domainSnapshot>;
export type DomainCheckpoint = ValueOf<typeof domainCheckpoint>;

/** A named value of one of seven types. */
export const typedParam = struct({
  field: text,
  value: union({
    int: [1, int],
    uint: [2, unsigned],
    llong: [3, hyper],
    ullong: [4, unsignedHyper],
    double: [5, double],
    boolean: [6, flag],
    string: [7, text],
  }),
});
export type TypedParam = ValueOf<typeof typedParam>;
export type TypedValue = TypedParam['value'];
export const params = (max: number) => array(typedParam, max);

/** Typed parameters as a record; of two with one name the last counts. */
export const paramsToRecord = (list: readonly TypedParam[]): Record<string, TypedValue['value']> =>
  Object.fromEntries(list.map((p) => [p.field, p.value.value]));

/** Bytes that travel as C `char`s, one XDR unit each. */
export const chars = (max: number): Codec<Uint8Array> =>
  mapped(
    array(char, max),
    (list) => Uint8Array.from(list),
    (bytes) => Array.from(bytes, (b) => (b << 24) >> 24),
  );
const toText = (list: readonly number[]): string => {
  const end = list.indexOf(0);
  return new TextDecoder().decode(Uint8Array.from(end < 0 ? list : list.slice(0, end)));
};
const toChars = (value: string): number[] => Array.from(new TextEncoder().encode(value), (b) => (b << 24) >> 24);
/** Text as a counted list of `char`s with a NUL at the end. */
export const charText = (max: number): Codec<string> => mapped(array(char, max), toText, (value) => [...toChars(value), 0]);
/** Text as exactly `length` `char`s, filled up with NUL; at most `length - 1` bytes. */
export const charTextFixed = (length: number): Codec<string> =>
  mapped(arrayFixed(char, length), toText, (value, w) => {
    const list = toChars(value);
    if (list.length >= length) w.fail(`${list.length} bytes, at most ${length - 1} accepted`);
    return [...list, ...new Array<number>(length - list.length).fill(0)];
  });

/** Bit n of byte n / 8 says that CPU n is in the set. */
export const cpumap = opaque(limits.cpumap);
/** Maps of one length each, one after the other. */
export const cpumaps = opaque(limits.cpumaps);
/** Part of a disk's or of the memory's content. */
export const peekBuffer = opaque(limits.peek);
export const cookie = opaque(limits.cookie);
