// All domains: found by name, UUID and id; their definitions as files that are replaced at once.
import { completeDomain } from '../../domain/complete.ts';
import { type Domain, formatDomain, parseDomain } from '../../domain/domain.ts';
import type { DefineContext } from '../../domain/emulator.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Domain as DomainRef } from '../../rpc/libvirt/types.ts';
import type { Emulators } from '../emulators.ts';
import { operationInvalid } from '../errors.ts';
import type { Events } from '../events.ts';
import type { DaemonHost } from '../host.ts';
import type { Paths } from '../paths.ts';
import { copyDomain, Guest } from './guest.ts';
import { type Lifecycle, lifecycle } from './states.ts';

export class Guests {
  readonly host: DaemonHost;
  readonly #configDirectory: string;
  readonly #autostartDirectory: string;
  readonly #libDirectory: string;
  readonly #emulators: Emulators;
  readonly #events: Events;
  readonly #byUuid = new Map<string, Guest>();
  readonly #byName = new Map<string, Guest>();
  #lastId = 0;

  constructor(host: DaemonHost, paths: Paths, emulators: Emulators, events: Events) {
    this.host = host;
    this.#emulators = emulators;
    this.#events = events;
    this.#configDirectory = `${paths.config}/qemu`;
    this.#autostartDirectory = `${paths.config}/qemu/autostart`;
    this.#libDirectory = `${paths.lib}/qemu`;
  }
  async load(): Promise<void> {
    const { files } = this.host;
    for (const directory of [this.#configDirectory, this.#autostartDirectory]) await files.makeDirectory(directory, 0o700);
    // Emulators of another user pass through it.
    await files.makeDirectory(this.#libDirectory, 0o755);
    await files.makeDirectory(`${this.#libDirectory}/channel/target`, 0o755);
    for (const name of ['save', 'snapshot', 'checkpoint', 'nvram', 'dump']) {
      await files.makeDirectory(`${this.#libDirectory}/${name}`, 0o700);
    }
    const autostarted = new Set(await files.list(this.#autostartDirectory));
    const saved = new Set(await files.list(`${this.#libDirectory}/save`));
    for (const file of await files.list(this.#configDirectory)) {
      if (file.includes('.xml.new-')) await files.remove(`${this.#configDirectory}/${file}`);
      if (!file.endsWith('.xml')) continue;
      const text = await files.read(`${this.#configDirectory}/${file}`);
      try {
        const domain = parseDomain(text ?? '');
        const guest = new Guest(domain.name, domain.uuid ?? '', this.host.timers);
        guest.config = domain;
        guest.autostart = autostarted.has(file);
        guest.managedSave = saved.has(`${domain.name}.save`);
        this.add(guest);
      } catch (error) {
        this.host.log(`Cannot load ${this.#configDirectory}/${file}: ${(error as Error).message}`);
      }
    }
  }
  get all(): readonly Guest[] {
    return [...this.#byUuid.values()];
  }
  add(guest: Guest): void {
    this.#byUuid.set(guest.uuid, guest);
    this.#byName.set(guest.name, guest);
  }
  remove(guest: Guest): void {
    if (this.#byUuid.get(guest.uuid) === guest) this.#byUuid.delete(guest.uuid);
    if (this.#byName.get(guest.name) === guest) this.#byName.delete(guest.name);
  }
  byName(name: string): Guest | undefined {
    return this.#byName.get(name);
  }
  byUuid(uuid: string): Guest | undefined {
    return this.#byUuid.get(uuid);
  }
  byId(id: number): Guest | undefined {
    return id < 0 ? undefined : this.all.find((one) => one.id === id);
  }
  /** The guest that a client means. @throws {LibvirtError} 42 */
  find(ref: DomainRef): Guest {
    const guest = this.#byUuid.get(ref.uuid);
    if (guest === undefined) throw libvirtError('noDomain', 'qemu', `no domain with matching uuid '${ref.uuid}' (${ref.name})`);
    return guest;
  }
  nextId(): number {
    return ++this.#lastId;
  }
  /** An id that a guest found again has. */
  usedId(id: number): void {
    this.#lastId = Math.max(this.#lastId, id);
  }
  async context(domain: Domain): Promise<DefineContext> {
    return {
      emulators: await this.#emulators.infos(domain.devices.emulator),
      random: (length) => this.host.crypto.random(length),
      arch: domain.os.type?.arch ?? this.host.facts.arch,
    };
  }
  /** A document with its defaults. @throws DomainXmlError */
  async parse(xml: string): Promise<Domain> {
    const domain = parseDomain(xml);
    delete domain.id;
    return completeDomain(domain, await this.context(domain));
  }
  /** Refuses a document whose name or UUID belongs to another domain. */
  check(domain: Domain, forStart: boolean): Guest | undefined {
    const same = this.#byUuid.get(domain.uuid!);
    if (same !== undefined) {
      if (same.name !== domain.name) {
        const detail = `domain '${same.name}' is already defined with uuid ${same.uuid}`;
        throw libvirtError('operationFailed', 'qemu', detail);
      }
      if (forStart && same.active) throw operationInvalid(`domain is already active as '${same.name}'`);
      return same;
    }
    const named = this.#byName.get(domain.name);
    if (named !== undefined) {
      throw libvirtError('operationFailed', 'qemu', `domain '${named.name}' already exists with uuid ${named.uuid}`);
    }
    return undefined;
  }
  async define(xml: string): Promise<Guest> {
    const domain = await this.parse(xml);
    let guest = this.check(domain, false);
    const known = guest?.config !== undefined;
    if (guest === undefined) {
      guest = new Guest(domain.name, domain.uuid!, this.host.timers);
      this.add(guest);
    }
    const before = guest.config;
    guest.config = domain;
    try {
      await this.save(guest);
    } catch (error) {
      guest.config = before;
      if (!known && !guest.active) this.remove(guest);
      throw error;
    }
    this.lifecycle(guest, known ? 'updated' : 'defined');
    return guest;
  }
  configFile(name: string): string {
    return `${this.#configDirectory}/${name}.xml`;
  }
  savePath(name: string): string {
    return `${this.#libDirectory}/save/${name}.save`;
  }
  nvramPath(name: string): string {
    return `${this.#libDirectory}/nvram/${name}_VARS.fd`;
  }
  /** Writes the definition of a persistent domain. */
  async save(guest: Guest): Promise<void> {
    if (guest.config) await this.host.files.write(this.configFile(guest.name), formatDomain(guest.config, { secure: true }));
  }
  /** Changes the persistent definition by a copy, so that a failure changes nothing. */
  async change(guest: Guest, edit: (domain: Domain) => void | Promise<void>): Promise<void> {
    if (!guest.config) throw operationInvalid('cannot do this on a transient domain');
    const domain = copyDomain(guest.config);
    await edit(domain);
    const before = guest.config;
    guest.config = domain;
    try {
      await this.save(guest);
    } catch (error) {
      guest.config = before;
      throw error;
    }
  }
  async setAutostart(guest: Guest, on: boolean): Promise<void> {
    if (!guest.persistent) throw operationInvalid('cannot set autostart for transient domain');
    const path = `${this.#autostartDirectory}/${guest.name}.xml`;
    if (on) await this.host.files.write(path, '');
    else await this.host.files.remove(path);
    guest.autostart = on;
  }
  /** Forgets the persistent definition; a running domain stays as a transient one. */
  async undefine(guest: Guest): Promise<void> {
    await this.host.files.remove(this.configFile(guest.name));
    await this.host.files.remove(`${this.#autostartDirectory}/${guest.name}.xml`);
    guest.autostart = false;
    guest.config = undefined;
    if (!guest.active) this.remove(guest);
    this.lifecycle(guest, 'undefined');
  }
  async rename(guest: Guest, name: string): Promise<void> {
    const { files } = this.host;
    if (name === guest.name) throw libvirtError('operationInvalid', 'qemu', `Can't rename domain to itself`);
    if (this.#byName.has(name)) throw operationInvalid(`domain with name '${name}' already exists`);
    const old = guest.name;
    this.lifecycle(guest, 'undefinedRenamed');
    const domain = copyDomain(guest.config!);
    domain.name = name;
    await files.write(this.configFile(name), formatDomain(domain, { secure: true }));
    const { autostart } = guest;
    await files.remove(this.configFile(old));
    await files.remove(`${this.#autostartDirectory}/${old}.xml`);
    this.remove(guest);
    guest.name = name;
    guest.config = domain;
    this.add(guest);
    if (autostart) await this.setAutostart(guest, true);
    this.lifecycle(guest, 'definedRenamed');
  }
  lifecycle(guest: Guest, what: Lifecycle, id = guest.id): void {
    const [event, detail] = lifecycle[what];
    this.#events.domain(0, { ...guest.ref, id }, { event, detail });
  }
}
