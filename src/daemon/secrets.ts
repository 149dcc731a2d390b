// Secrets: their descriptions and values as files; a private one's value is never given out.
import { completeSecret, formatSecret, parseSecret, type Secret, secretUsageId } from '../domain/secret.ts';
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { Secret as SecretRef } from '../rpc/libvirt/types.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { translateErrors } from './errors.ts';
import { type FlagGroups, wanted } from './guest/list-flags.ts';

const usageTypes = ['none', 'volume', 'ceph', 'iscsi', 'tls', 'vtpm'] as const;

interface Entry {
  secret: Secret;
  value: Uint8Array | undefined;
}
const refOf = ({ secret }: Entry): SecretRef => ({
  uuid: secret.uuid!,
  usageType: Math.max(0, usageTypes.indexOf(secret.usage?.type ?? 'none')),
  usageId: secretUsageId(secret) ?? '',
});

const listGroups: FlagGroups<Entry> = [
  [
    [1, (one) => one.secret.ephemeral === 'yes'],
    [2, (one) => one.secret.ephemeral !== 'yes'],
  ],
  [
    [4, (one) => one.secret.private === 'yes'],
    [8, (one) => one.secret.private !== 'yes'],
  ],
];

export class Secrets {
  readonly #daemon: Daemon;
  readonly #entries = new Map<string, Entry>();

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }
  get #directory(): string {
    return `${this.#daemon.paths.config}/secrets`;
  }
  async load(): Promise<void> {
    const { files } = this.#daemon.host;
    await files.makeDirectory(this.#directory, 0o700);
    for (const file of await files.list(this.#directory)) {
      if (!file.endsWith('.xml')) continue;
      try {
        const secret = parseSecret((await files.read(`${this.#directory}/${file}`)) ?? '');
        const path = `${this.#directory}/${secret.uuid}.value`;
        const there = await files.status(path);
        let value: Uint8Array | undefined;
        if (there) {
          const open = await files.open(path, 'read');
          value = await open.read(0, there.size).finally(() => open.close());
        }
        this.#entries.set(secret.uuid!, { secret, value });
      } catch (error) {
        this.#daemon.host.log(`Cannot load ${this.#directory}/${file}: ${(error as Error).message}`);
      }
    }
  }
  #find(ref: SecretRef): Entry {
    const found = this.#entries.get(ref.uuid);
    if (!found) throw libvirtError('noSecret', 'secret', `no secret with matching uuid '${ref.uuid}'`);
    return found;
  }
  async #define(xml: string): Promise<Entry> {
    const secret = completeSecret(parseSecret(xml), (length) => this.#daemon.host.crypto.random(length));
    const old = this.#entries.get(secret.uuid!);
    const id = secretUsageId(secret);
    for (const other of this.#entries.values()) {
      if (other === old || id === undefined) continue;
      if (secretUsageId(other.secret) === id && other.secret.usage?.type === secret.usage?.type) {
        throw libvirtError(
          'internalError',
          'secret',
          `a secret with UUID ${other.secret.uuid} already defined for use with ${id}`,
        );
      }
    }
    if (old) {
      if (secretUsageId(old.secret) !== id) {
        throw libvirtError(
          'internalError',
          'secret',
          `a secret with UUID ${secret.uuid} is already defined for use with ${secretUsageId(old.secret)}`,
        );
      }
      if (old.secret.private === 'yes' && secret.private !== 'yes') {
        throw libvirtError('operationDenied', 'secret', 'cannot change private flag on existing secret');
      }
    }
    if (secret.ephemeral !== 'yes')
      await this.#daemon.host.files.write(`${this.#directory}/${secret.uuid}.xml`, formatSecret(secret));
    const entry: Entry = { secret, value: old?.value };
    this.#entries.set(secret.uuid!, entry);
    this.#daemon.events.secret(refOf(entry), 0);
    return entry;
  }
  handlers(): RemoteHandlers {
    const { files } = this.#daemon.host;
    return translateErrors('secret', {
      connectNumOfSecrets: () => ({ num: this.#entries.size }),
      connectListSecrets: ({ maxUuids }) => ({ uuids: [...this.#entries.keys()].slice(0, maxUuids) }),
      connectListAllSecrets: ({ needResults, flags }) => {
        const found = [...this.#entries.values()].filter((one) => wanted(one, flags, listGroups));
        return { secrets: needResults ? found.map(refOf) : [], ret: found.length };
      },
      secretLookupByUuid: ({ uuid }) => ({ secret: refOf(this.#find({ uuid, usageType: 0, usageId: '' })) }),
      secretLookupByUsage: ({ usageType, usageId }) => {
        const found = [...this.#entries.values()].find(
          (one) => refOf(one).usageType === usageType && refOf(one).usageId === usageId,
        );
        if (!found) throw libvirtError('noSecret', 'secret', `no secret with matching usage '${usageId}'`);
        return { secret: refOf(found) };
      },
      secretDefineXml: async ({ xml }) => ({ secret: refOf(await this.#define(xml)) }),
      secretGetXmlDesc: ({ secret }) => ({ xml: formatSecret(this.#find(secret).secret) }),
      secretSetValue: async ({ secret, value }) => {
        const entry = this.#find(secret);
        // What was decoded is a view of the packet.
        const kept = value.slice();
        if (entry.secret.ephemeral !== 'yes') await files.write(`${this.#directory}/${secret.uuid}.value`, kept);
        entry.value = kept;
        this.#daemon.events.secretValue(refOf(entry));
      },
      secretGetValue: ({ secret }) => {
        const entry = this.#find(secret);
        if (entry.secret.private === 'yes') throw libvirtError('invalidSecret', 'secret', 'secret is private');
        if (!entry.value) throw libvirtError('noSecret', 'secret', `secret '${secret.uuid}' does not have a value`);
        return { value: entry.value };
      },
      secretUndefine: async ({ secret }) => {
        const entry = this.#find(secret);
        await files.remove(`${this.#directory}/${secret.uuid}.xml`);
        await files.remove(`${this.#directory}/${secret.uuid}.value`);
        this.#entries.delete(secret.uuid);
        this.#daemon.events.secret(refOf(entry), 1);
      },
    } satisfies RemoteHandlers);
  }
}
