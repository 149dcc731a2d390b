// Network filters: their documents as files, and what network devices of the host are bound to them. Rules are nftables' where this daemon makes bridges.

import type { NetworkInterface } from '../domain/model/interface.ts';
import {
  completeNwfilter,
  type FilterBinding,
  formatFilterBinding,
  formatNwfilter,
  type Nwfilter,
  parseFilterBinding,
  parseNwfilter,
} from '../domain/nwfilter.ts';
import { formatXml, newElement } from '../domain/xml.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { NwfilterBinding as BindingRef, Nwfilter as FilterRef } from '../rpc/libvirt/types.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { operationInvalid, translateErrors } from './errors.ts';
import { filterTable, tableOf } from './network/filter-rules.ts';

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
        await this.#apply(binding);
      } catch (error) {
        log(`Cannot load ${this.#bindingDirectory}/${file}: ${(error as Error).message}`);
      }
    }
  }
  async load(): Promise<void> {
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
    await this.#loadBindings();
  }
  async #nft(script: string): Promise<void> {
    const { code, err } = await this.#daemon.host.processes.run('nft', ['-f', '-'], script);
    if (code === 0) return;
    const reason = err.trim().split('\n')[0] ?? '';
    throw libvirtError('internalError', 'nwfilter', `Some rules could not be created for a network filter: ${reason}`);
  }
  /** Puts a binding's rules in force in place of those before, all at once. */
  async #apply(binding: FilterBinding): Promise<void> {
    if (this.#daemon.options.bridges) await this.#nft(filterTable(binding, (name) => this.#byName.get(name)));
  }
  async #bind(binding: FilterBinding): Promise<void> {
    const { name } = binding.portdev;
    if (this.#bindings.has(name)) throw libvirtError('operationFailed', 'nwfilter', `binding '${name}' already exists`);
    await this.#apply(binding);
    await this.#daemon.host.files.makeDirectory(this.#bindingDirectory, 0o700);
    await this.#daemon.host.files.write(`${this.#bindingDirectory}/${name}.xml`, formatFilterBinding(binding));
    this.#bindings.set(name, binding);
  }
  async #unbind(name: string): Promise<void> {
    await this.#daemon.host.files.remove(`${this.#bindingDirectory}/${name}.xml`);
    this.#bindings.delete(name);
    const table = tableOf(name);
    if (this.#daemon.options.bridges) await this.#nft(`add table bridge ${table}\ndelete table bridge ${table}\n`);
  }
  /** Has the frames of a guest's card, which has its tap, go through the filter that its definition names. @throws {LibvirtError} where that can't be */
  async bindCard(guest: { readonly name: string; readonly uuid: string }, card: NetworkInterface): Promise<void> {
    const { filterref } = card;
    if (!filterref) return;
    const device = card.target?.dev;
    if (device === undefined || !this.#daemon.options.bridges) {
      throw libvirtError(
        'configUnsupported',
        'nwfilter',
        `filterref is not supported for a network interface without a tap device: '${filterref.attributes['filter']}' would filter nothing`,
      );
    }
    const reference = { ...filterref, name: 'filterref' };
    const root = newElement('filterbinding', {}, [
      newElement('owner', {}, [newElement('name', {}, [guest.name]), newElement('uuid', {}, [guest.uuid])]),
      newElement('portdev', { name: device }),
      newElement('mac', { address: card.mac!.address }),
      reference,
    ]);
    // A guest that was killed with its daemon may have left one.
    if (this.#bindings.has(device)) await this.#unbind(device);
    await this.#bind(parseFilterBinding(formatXml(root)));
  }
  async unbindCard(card: NetworkInterface): Promise<void> {
    const device = card.target?.dev;
    if (card.filterref && device !== undefined && this.#bindings.has(device)) {
      await this.#unbind(device).catch((error: Error) => this.#daemon.host.log(error.message));
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
    this.#byName.set(filter.name, filter);
    try {
      // Who is bound to it follows at once; what cannot be in force changes nothing.
      for (const binding of this.#bindings.values()) await this.#apply(binding);
    } catch (error) {
      if (old) this.#byName.set(old.name, old);
      else this.#byName.delete(filter.name);
      for (const binding of this.#bindings.values()) await this.#apply(binding).catch(() => {});
      throw error;
    }
    await this.#daemon.host.files.write(`${this.#directory}/${filter.name}.xml`, formatNwfilter(filter));
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
        const bound = [...this.#bindings.values()].some((one) => one.filterref.filter === found.name);
        if (user || bound) throw operationInvalid('nwfilter is in use');
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
        await this.#bind(binding);
        return { binding: bindingRef(binding) };
      },
      nwfilterBindingDelete: async ({ binding }) => {
        await this.#unbind(bound(binding.portDev).portdev.name);
      },
    } satisfies RemoteHandlers);
  }
}
