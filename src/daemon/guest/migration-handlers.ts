// Procedures of migration: libvirt's version 3 with parameters, and its settings.
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { operationInvalid, translateErrors } from '../errors.ts';
import {
  begin,
  checkMigrateFlags,
  confirm,
  finish,
  migrateFlag,
  perform,
  performPeerToPeer,
  prepare,
  readParams,
} from './migration.ts';
import { intoEmulator } from './migration-tunnel.ts';

export function migrationHandlers(daemon: Daemon): RemoteHandlers {
  const { guests, sessions } = daemon;
  return translateErrors('qemu', {
    async domainMigrateBegin3Params({ dom, params, flags }) {
      return begin(daemon, guests.find(dom), readParams(params), flags);
    },
    async domainMigratePrepare3Params({ params, cookieIn, flags }, call) {
      const { uriOut, cookieOut } = await prepare(daemon, readParams(params), flags, cookieIn, sessions.of(call));
      return { uriOut, cookieOut };
    },
    async domainMigratePrepareTunnel3Params({ params, cookieIn, flags }, call) {
      const { cookieOut, incoming } = await prepare(daemon, readParams(params), flags, cookieIn, sessions.of(call), true);
      call.stream((stream) => intoEmulator(daemon, incoming, stream));
      return { cookieOut };
    },
    async domainMigratePerform3Params({ dom, dconnUri, params, cookieIn, flags }, call) {
      checkMigrateFlags(flags);
      const guest = guests.find(dom);
      const given = readParams(params);
      if ((flags & migrateFlag.peer2peer) !== 0) {
        if (dconnUri === undefined) throw libvirtError('internalError', 'qemu', 'no destination URI for peer to peer migration');
        await guest.lock.run('DomainMigratePerform', () => performPeerToPeer(daemon, guest, dconnUri, given, flags));
      } else {
        if (dconnUri !== undefined)
          throw libvirtError('internalError', 'qemu', 'Unexpected dconnuri parameter with non-peer2peer migration');
        await guest.lock.run('DomainMigratePerform', () => perform(daemon, guest, given, flags, cookieIn, sessions.of(call)));
      }
      return { cookieOut: new Uint8Array() };
    },
    async domainMigrateFinish3Params({ params, flags, cancelled }) {
      const given = readParams(params);
      const guest = await finish(daemon, given.name ?? nameIn(given.xml), given, flags, cancelled);
      return { dom: guest.ref, cookieOut: new Uint8Array() };
    },
    async domainMigrateConfirm3Params({ dom, flags, cancelled }) {
      const guest = guests.find(dom);
      await guest.lock.run('DomainMigrateConfirm', () => confirm(daemon, guest, flags, cancelled));
    },
    async domainMigrateSetMaxDowntime({ dom, downtime }) {
      const guest = guests.find(dom);
      guest.live();
      guest.migrationDowntime = Number(downtime);
      await guest.qmp('migrate-set-parameters', { 'downtime-limit': downtime });
    },
    domainMigrateGetMaxDowntime({ dom }) {
      const guest = guests.find(dom);
      guest.live();
      return { downtime: BigInt(guest.migrationDowntime) };
    },
    async domainMigrateSetMaxSpeed({ dom, bandwidth }) {
      const guest = guests.find(dom);
      guest.migrationSpeed = bandwidth;
      if (guest.job) await guest.qmp('migrate-set-parameters', { 'max-bandwidth': bandwidth * 1_048_576n });
    },
    domainMigrateGetMaxSpeed: ({ dom }) => ({ bandwidth: guests.find(dom).migrationSpeed }),
    domainMigrateGetCompressionCache({ dom }) {
      const guest = guests.find(dom);
      guest.live();
      return { cacheSize: BigInt(guest.compressionCache) };
    },
    async domainMigrateSetCompressionCache({ dom, cacheSize }) {
      const guest = guests.find(dom);
      await guest.qmp('migrate-set-parameters', { 'xbzrle-cache-size': cacheSize });
      guest.compressionCache = Number(cacheSize);
    },
    domainMigrateStartPostCopy({ dom }) {
      guests.find(dom).live();
      throw operationInvalid('post-copy can only be started while outgoing migration is in progress');
    },
  } satisfies RemoteHandlers);
}

const nameIn = (xml: string | undefined): string => /<name>([^<]*)<\/name>/.exec(xml ?? '')?.[1] ?? '';
