// Procedures of snapshots and checkpoints.
import { formatSnapshot, type Snapshot } from '../../domain/snapshot.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Domain as DomainRef } from '../../rpc/libvirt/types.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, translateErrors } from '../errors.ts';
import { formatCheckpoint } from './checkpoint-model.ts';
import { createCheckpoint, deleteCheckpoint, findCheckpoint } from './checkpoints.ts';
import type { Guest } from './guest.ts';
import { type FlagGroups, wanted } from './list-flags.ts';
import { childrenOf, createSnapshot, deleteSnapshot, descendantsOf, findSnapshot, revertSnapshot } from './snapshots.ts';

const isExternal = (one: Snapshot): boolean =>
  one.memory?.snapshot === 'external' || (one.disks?.disks.some((disk) => disk.snapshot === 'external') ?? false);

const groupsFor = (guest: Guest): FlagGroups<Snapshot> => [
  [
    [4, (one) => childrenOf(guest, one.name!).length === 0],
    [8, (one) => childrenOf(guest, one.name!).length > 0],
  ],
  [
    [2, () => true],
    [16, () => false],
  ],
  [
    [32, (one) => one.state === 'shutoff'],
    [64, (one) => one.state !== 'shutoff' && one.state !== 'disk-snapshot'],
    [128, (one) => one.state === 'disk-snapshot'],
  ],
  [
    [256, (one) => !isExternal(one)],
    [512, isExternal],
  ],
];

export function snapshotHandlers(daemon: Daemon): RemoteHandlers {
  const { guests } = daemon;
  const list = (guest: Guest, from: string | undefined, flags: number): Snapshot[] => {
    // Bit 0: only roots without a start, all descendants with one.
    const all = [...guest.snapshots.values()];
    const start =
      from === undefined
        ? (flags & 1) === 1
          ? all.filter((one) => one.parent === undefined)
          : all
        : (flags & 1) === 1
          ? descendantsOf(guest, from)
          : childrenOf(guest, from);
    return start.filter((one) => wanted(one, flags, groupsFor(guest)));
  };
  const refs = (guest: Guest, found: readonly Snapshot[]) => found.map((one) => ({ name: one.name!, dom: guest.ref }));
  const of = (snap: { readonly name: string; readonly dom: DomainRef }) => {
    const guest = guests.find(snap.dom);
    return { guest, snapshot: findSnapshot(guest, snap.name) };
  };
  return translateErrors('qemu', {
    domainSnapshotCreateXml: async ({ dom, xml, flags }) => {
      checkFlags('qemuSnapshotCreateXML', flags, 0x3ff);
      const guest = guests.find(dom);
      return { snap: { name: await createSnapshot(daemon, guest, xml, flags), dom: guest.ref } };
    },
    domainSnapshotGetXmlDesc({ snap, flags }) {
      const { snapshot } = of(snap);
      const text = formatSnapshot(snapshot);
      if ((flags & 1) === 1 || !snapshot.domain) return { xml: text };
      return { xml: text };
    },
    domainSnapshotNum: ({ dom, flags }) => ({ num: list(guests.find(dom), undefined, flags).length }),
    domainSnapshotListNames: ({ dom, maxNames, flags }) => ({
      names: list(guests.find(dom), undefined, flags)
        .slice(0, maxNames)
        .map((one) => one.name!),
    }),
    domainListAllSnapshots({ dom, needResults, flags }) {
      const guest = guests.find(dom);
      const found = list(guest, undefined, flags);
      return { snapshots: needResults ? refs(guest, found) : [], ret: found.length };
    },
    domainSnapshotNumChildren({ snap, flags }) {
      const { guest } = of(snap);
      return { num: list(guest, snap.name, flags).length };
    },
    domainSnapshotListChildrenNames({ snap, maxNames, flags }) {
      const { guest } = of(snap);
      return {
        names: list(guest, snap.name, flags)
          .slice(0, maxNames)
          .map((one) => one.name!),
      };
    },
    domainSnapshotListAllChildren({ snap, needResults, flags }) {
      const { guest } = of(snap);
      const found = list(guest, snap.name, flags);
      return { snapshots: needResults ? refs(guest, found) : [], ret: found.length };
    },
    domainSnapshotLookupByName({ dom, name }) {
      const guest = guests.find(dom);
      findSnapshot(guest, name);
      return { snap: { name, dom: guest.ref } };
    },
    domainHasCurrentSnapshot: ({ dom }) => ({ result: guests.find(dom).currentSnapshot === undefined ? 0 : 1 }),
    domainSnapshotCurrent({ dom }) {
      const guest = guests.find(dom);
      if (guest.currentSnapshot === undefined) {
        throw libvirtError('noDomainSnapshot', 'qemu', 'the domain does not have a current snapshot');
      }
      return { snap: { name: guest.currentSnapshot, dom: guest.ref } };
    },
    domainSnapshotGetParent({ snap }) {
      const { guest, snapshot } = of(snap);
      if (!snapshot.parent?.name)
        throw libvirtError('noDomainSnapshot', 'qemu', `snapshot '${snap.name}' does not have a parent`);
      return { snap: { name: snapshot.parent.name, dom: guest.ref } };
    },
    domainSnapshotIsCurrent({ snap }) {
      const { guest } = of(snap);
      return { current: guest.currentSnapshot === snap.name };
    },
    domainSnapshotHasMetadata({ snap }) {
      of(snap);
      return { metadata: true };
    },
    domainRevertToSnapshot: async ({ snap, flags }) => {
      checkFlags('qemuDomainRevertToSnapshot', flags, 15);
      await revertSnapshot(daemon, guests.find(snap.dom), snap.name, flags);
    },
    domainSnapshotDelete: async ({ snap, flags }) => {
      checkFlags('qemuDomainSnapshotDelete', flags, 7);
      await deleteSnapshot(daemon, guests.find(snap.dom), snap.name, flags);
    },

    domainCheckpointCreateXml: async ({ dom, xml, flags }) => {
      const guest = guests.find(dom);
      return { checkpoint: { name: await createCheckpoint(daemon, guest, xml, flags), dom: guest.ref } };
    },
    domainCheckpointGetXmlDesc({ checkpoint, flags }) {
      const found = findCheckpoint(guests.find(checkpoint.dom), checkpoint.name);
      // Flag 2 leaves the domain's document out.
      const { domain, ...rest } = found;
      return { xml: formatCheckpoint((flags & 2) !== 0 || !domain ? rest : found) };
    },
    domainListAllCheckpoints({ dom, needResults, flags }) {
      const guest = guests.find(dom);
      const all = [...guest.checkpoints.values()];
      const found = (flags & 1) === 1 ? all.filter((one) => one.parent === undefined) : all;
      const checkpoints = needResults ? found.map((one) => ({ name: one.name!, dom: guest.ref })) : [];
      return { checkpoints, ret: found.length };
    },
    domainCheckpointListAllChildren({ checkpoint, needResults }) {
      const guest = guests.find(checkpoint.dom);
      const found = [...guest.checkpoints.values()].filter((one) => one.parent?.name === checkpoint.name);
      return { checkpoints: needResults ? found.map((one) => ({ name: one.name!, dom: guest.ref })) : [], ret: found.length };
    },
    domainCheckpointLookupByName({ dom, name }) {
      const guest = guests.find(dom);
      findCheckpoint(guest, name);
      return { checkpoint: { name, dom: guest.ref } };
    },
    domainCheckpointGetParent({ checkpoint }) {
      const guest = guests.find(checkpoint.dom);
      const found = findCheckpoint(guest, checkpoint.name);
      if (!found.parent?.name) {
        throw libvirtError('noDomainCheckpoint', 'qemu', `checkpoint '${checkpoint.name}' does not have a parent`);
      }
      return { parent: { name: found.parent.name, dom: guest.ref } };
    },
    domainCheckpointDelete: async ({ checkpoint, flags }) => {
      await deleteCheckpoint(daemon, guests.find(checkpoint.dom), checkpoint.name, flags);
    },
  } satisfies RemoteHandlers);
}
