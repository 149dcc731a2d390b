// Folders of the host on the command line of `nonroot-system-x86_64`: `-fsdev`, and `-virtfs`, which makes the device as well (QEMU 7.2,
// "System Emulation", section "Invocation").

import type { Folder, FolderOptions } from '../devices/ninep/folder.ts';
import { type MappedOptions, mappedFolder } from '../devices/ninep/mapped.ts';
import type { Backends } from '../machine/backends.ts';
import { optionMap } from '../monitor/keyval.ts';
import type { ProgramHost } from './host.ts';
import { addDevice } from './system-device-options.ts';
import { does, parameters, type SystemOption } from './system-option.ts';
import { oneOf, onOff, Refused, type Settings } from './system-settings.ts';

export interface FsdevSetting {
  /** The option, for errors. */
  readonly text: string;
  readonly id: string;
  readonly path: string;
  readonly options: FolderOptions;
  /** The guest's owners and modes are kept beside the files. */
  readonly mapped?: MappedOptions;
}

/** What a security model means for the folder and, where it maps, for the attributes. */
const models: Readonly<Record<string, { readonly owners: 'ignore' | 'try' | 'must'; readonly store?: MappedOptions['store'] }>> =
  {
    passthrough: { owners: 'must' },
    none: { owners: 'try' },
    mapped: { owners: 'ignore', store: 'xattr' },
    'mapped-xattr': { owners: 'ignore', store: 'xattr' },
    'mapped-file': { owners: 'ignore', store: 'file' },
  };
const MODELS = 'passthrough, mapped-xattr, mapped-file, none';

function mode(option: string, text: string | undefined, usual: number): number {
  if (text === undefined) return usual;
  if (!/^[0-7]{1,4}$/.test(text)) throw new Refused(`${option}=${text}: accepted are modes in octal, as 0640`);
  return Number.parseInt(text, 8);
}

/** Reads the properties of a folder; `extra` are those of the option besides. */
function fsdev(
  option: string,
  text: string,
  extra: readonly string[],
): { map: Map<string, string>; of(id: string): FsdevSetting } {
  const map = optionMap(text, 'fsdriver');
  const driver = map.get('fsdriver') ?? '';
  oneOf(`${option} `, driver, ['local']);
  const accepted = ['fsdriver', 'id', 'path', 'security_model', 'writeout', 'readonly', 'fmode', 'dmode', 'multidevs', ...extra];
  for (const [key, value] of map) if (!accepted.includes(key)) throw new Refused(`${option} ${key}=${value}: not supported`);
  const whole = `${option} ${text}`;
  const name = map.get('security_model');
  if (name === undefined) throw new Refused(`${whole}: security_model is missing; accepted: ${MODELS}`);
  const model = Object.hasOwn(models, name) ? models[name]! : undefined;
  if (!model) throw new Refused(`${option} security_model=${name}: not supported; accepted: ${MODELS}`);
  const path = map.get('path') ?? '';
  if (path === '') throw new Refused(`${whole}: path is missing`);
  for (const key of ['fmode', 'dmode'])
    if (!model.store && map.has(key)) throw new Refused(`${whole}: ${key} is only valid for mapped security modes`);
  const multidevs = oneOf(`${option} multidevs=`, map.get('multidevs') ?? 'warn', ['remap', 'forbid', 'warn']);
  const writeout = map.get('writeout');
  if (writeout !== undefined) oneOf(`${option} writeout=`, writeout, ['immediate']);
  const options: FolderOptions = {
    readOnly: onOff(`${option} readonly=`, map.get('readonly') ?? 'off'),
    owners: model.owners,
    writeThrough: writeout === 'immediate',
    oneDevice: multidevs === 'forbid',
  };
  const mapped = model.store && {
    store: model.store,
    fileMode: mode(`${option} fmode`, map.get('fmode'), 0o600),
    folderMode: mode(`${option} dmode`, map.get('dmode'), 0o700),
  };
  return { map, of: (id) => ({ text: whole, id, path, options, ...(mapped ? { mapped } : {}) }) };
}

function add(s: Settings, one: FsdevSetting): void {
  if (s.fsdevs.some(({ id }) => id === one.id)) throw new Refused(`${one.text}: there is an fsdev '${one.id}' already`);
  s.fsdevs.push(one);
}

function virtfs(s: Settings, text: string): void {
  const { map, of } = fsdev('-virtfs', text, ['mount_tag']);
  const tag = map.get('mount_tag');
  if (tag === undefined) throw new Refused(`-virtfs ${text}: mount_tag is missing`);
  const id = map.get('id') ?? tag;
  add(s, of(id));
  addDevice(s, { driver: 'virtio-9p-pci', fsdev: id, mount_tag: tag }, `virtio-9p-pci,fsdev=${id},mount_tag=${tag}`);
}

/**
 * Opens a folder and puts it among the back-ends.
 * @throws Error (rejects) with one line
 */
export async function openFsdev(one: FsdevSetting, host: ProgramHost, backends: Backends): Promise<Folder> {
  const plain = await host.folder(one.path, one.options).catch((error: Error) => {
    throw new Refused(`${one.text}: ${error.message}`);
  });
  const folder = one.mapped ? mappedFolder(plain, one.mapped) : plain;
  backends.fsdevs.add(one.id, folder);
  return folder;
}

const types = parameters({
  string: 'fsdriver path security_model writeout fmode dmode multidevs',
  boolean: 'readonly',
});

export const fsdevOptions: readonly SystemOption[] = [
  {
    names: ['-fsdev'],
    value: 'local,id=ID,path=FOLDER,security_model=MODEL[,readonly=on][,PROPERTY=VALUE]',
    help: `a folder for -device virtio-9p-pci,fsdev=ID; models: ${MODELS}`,
    group: 'fsdev',
    parameters: types,
    apply: does((s, text) => {
      const { map, of } = fsdev('-fsdev', text, []);
      const id = map.get('id');
      if (id === undefined) throw new Refused(`-fsdev ${text}: id is missing`);
      add(s, of(id));
    }),
  },
  {
    names: ['-virtfs'],
    value: 'local,path=FOLDER,mount_tag=TAG,security_model=MODEL[,readonly=on][,PROPERTY=VALUE]',
    help: 'share a folder: -fsdev and its device in one',
    group: 'virtfs',
    parameters: [...types, ...parameters({ string: 'mount_tag' })],
    apply: does(virtfs),
  },
];
