// Network filters: their documents as files. They are kept and given out; no card of a guest in user mode passes through them.
import {
  completeNwfilter,
  type FilterBinding,
  formatFilterBinding,
  formatNwfilter,
  type Nwfilter,
  parseFilterBinding,
  parseNwfilter,
} from '../domain/nwfilter.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { NwfilterBinding as BindingRef, Nwfilter as FilterRef } from '../rpc/libvirt/types.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { operationInvalid, translateErrors } from './errors.ts';

const refOf = (filter: Nwfilter): FilterRef => ({ name: filter.name, uuid: filter.uuid! });

const bindingRef = (one: FilterBinding): BindingRef => ({ portDev: one.portdev.name, filterName: one.filterref.filter });

export class Filters {
  readonly #daemon: Daemon;
  readonly #byName = new Map<string, Nwfilter>();
  readonly #bindings = new Map<string, FilterBinding>();

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }
  get #directory(): string {
    return `${this.#daemon.paths.config}/nwfilter`;
  }
  get #bindingDirectory(): string {
    return `${this.#daemon.paths.run}/nwfilter-binding`;
  }
  async #loadBindings(): Promise<void> {
    const { files, log } = this.#daemon.host;
    for (const file of await files.list(this.#bindingDirectory)) {
      try {
        const binding = parseFilterBinding((await files.read(`${this.#bindingDirectory}/${file}`)) ?? '');
        this.#bindings.set(binding.portdev.name, binding);
      } catch (error) {
        log(`Cannot load ${this.#bindingDirectory}/${file}: ${(error as Error).message}`);
      }
    }
  }
  async load(): Promise<void> {
    await this.#loadBindings();
    const { files } = this.#daemon.host;
    await files.makeDirectory(this.#directory, 0o700);
    for (const file of await files.list(this.#directory)) {
      if (!file.endsWith('.xml')) continue;
      try {
        const filter = parseNwfilter((await files.read(`${this.#directory}/${file}`)) ?? '');
        this.#byName.set(
          filter.name,
          completeNwfilter(filter, (length) => this.#daemon.host.crypto.random(length)),
        );
      } catch (error) {
        this.#daemon.host.log(`Cannot load ${this.#directory}/${file}: ${(error as Error).message}`);
      }
    }
  }
  async #define(xml: string): Promise<Nwfilter> {
    const filter = parseNwfilter(xml);
    const old = this.#byName.get(filter.name);
    if (old && filter.uuid !== undefined && old.uuid !== filter.uuid) {
      throw libvirtError('operationFailed', 'nwfilter', `filter '${filter.name}' already exists with uuid ${old.uuid}`);
    }
    const same = [...this.#byName.values()].find((one) => one.uuid === filter.uuid && one.name !== filter.name);
    if (same)
      throw libvirtError(
        'operationFailed',
        'nwfilter',
        `filter with same UUID but different name ('${same.name}') already exists`,
      );
    if (old) filter.uuid ??= old.uuid!;
    completeNwfilter(filter, (length) => this.#daemon.host.crypto.random(length));
    await this.#daemon.host.files.write(`${this.#directory}/${filter.name}.xml`, formatNwfilter(filter));
    this.#byName.set(filter.name, filter);
    return filter;
  }
  handlers(): RemoteHandlers {
    const byRef = (ref: FilterRef): Nwfilter => {
      const found = [...this.#byName.values()].find((one) => one.uuid === ref.uuid);
      if (!found) throw libvirtError('noNwfilter', 'nwfilter', `no nwfilter with matching uuid '${ref.uuid}' (${ref.name})`);
      return found;
    };
    const bound = (name: string): FilterBinding => {
      const found = this.#bindings.get(name);
      if (!found) throw libvirtError('noNwfilterBinding', 'nwfilter', `no nwfilter binding for port dev '${name}'`);
      return found;
    };
    return translateErrors('nwfilter', {
      connectNumOfNwfilters: () => ({ num: this.#byName.size }),
      connectListNwfilters: ({ maxNames }) => ({ names: [...this.#byName.keys()].slice(0, maxNames) }),
      connectListAllNwfilters: ({ needResults }) => {
        const all = [...this.#byName.values()].map(refOf);
        return { filters: needResults ? all : [], ret: all.length };
      },
      nwfilterLookupByName: ({ name }) => {
        const found = this.#byName.get(name);
        if (!found) throw libvirtError('noNwfilter', 'nwfilter', `no nwfilter with matching name '${name}'`);
        return { nwfilter: refOf(found) };
      },
      nwfilterLookupByUuid: ({ uuid }) => ({ nwfilter: refOf(byRef({ uuid, name: uuid })) }),
      nwfilterGetXmlDesc: ({ nwfilter }) => ({ xml: formatNwfilter(byRef(nwfilter)) }),
      nwfilterDefineXml: async ({ xml }) => ({ nwfilter: refOf(await this.#define(xml)) }),
      nwfilterDefineXmlFlags: async ({ xml }) => ({ nwfilter: refOf(await this.#define(xml)) }),
      nwfilterUndefine: async ({ nwfilter }) => {
        const found = byRef(nwfilter);
        const user = [...this.#byName.values()].find((one) =>
          one.entries.some((entry) => entry.kind === 'filterref' && entry.element.attributes['filter'] === found.name),
        );
        if (user) throw operationInvalid('nwfilter is in use');
        await this.#daemon.host.files.remove(`${this.#directory}/${found.name}.xml`);
        this.#byName.delete(found.name);
      },
      connectListAllNwfilterBindings: ({ needResults }) => {
        const all = [...this.#bindings.values()].map(bindingRef);
        return { bindings: needResults ? all : [], ret: all.length };
      },
      nwfilterBindingLookupByPortDev: ({ name }) => ({ binding: bindingRef(bound(name)) }),
      nwfilterBindingGetXmlDesc: ({ binding }) => ({ xml: formatFilterBinding(bound(binding.portDev)) }),
      nwfilterBindingCreateXml: async ({ xml }) => {
        const binding = parseFilterBinding(xml);
        const { name } = binding.portdev;
        if (this.#bindings.has(name)) throw libvirtError('operationFailed', 'nwfilter', `binding '${name}' already exists`);
        await this.#daemon.host.files.makeDirectory(this.#bindingDirectory, 0o700);
        await this.#daemon.host.files.write(`${this.#bindingDirectory}/${name}.xml`, formatFilterBinding(binding));
        this.#bindings.set(name, binding);
        return { binding: bindingRef(binding) };
      },
      nwfilterBindingDelete: async ({ binding }) => {
        const { name } = bound(binding.portDev).portdev;
        await this.#daemon.host.files.remove(`${this.#bindingDirectory}/${name}.xml`);
        this.#bindings.delete(name);
      },
    } satisfies RemoteHandlers);
  }
}
