// SIGKILL to daemon, emulator or client in the middle of changes: no domain, volume or snapshot is lost or doubled.
// NONROOT_KILL_ROUNDS (default 12) and NONROOT_KILL_SEED say how long and which; 200 rounds are run by hand.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { remote } from '../../src/rpc/libvirt/programs.ts';
import { Client, idleGuest, makeDisk, until, uuidOf } from './client.ts';
import { missing, realEmulator, TestDaemon } from './daemon-process.ts';

const skip = missing(realEmulator, 'qemu-img');
const rounds = Number(process.env['NONROOT_KILL_ROUNDS'] ?? 12);
const seed = Number(process.env['NONROOT_KILL_SEED'] ?? Date.now() % 1_000_000);

/** xorshift32: the same seed gives the same rounds. */
function generator(from: number): (below: number) => number {
  let x = from || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

interface World {
  domains: Set<string>;
  volumes: Set<string>;
  /** `domain/snapshot`. */
  snapshots: Set<string>;
}
const copy = (world: World): World => ({
  domains: new Set(world.domains),
  volumes: new Set(world.volumes),
  snapshots: new Set(world.snapshots),
});
const text = (world: World): string =>
  [world.domains, world.volumes, world.snapshots].map((set) => [...set].sort().join(' ')).join(' | ');

/** What makes one world of another. */
function difference(from: World, to: World): (world: World) => World {
  const kinds = ['domains', 'volumes', 'snapshots'] as const;
  return (world) => {
    const next = copy(world);
    for (const kind of kinds) {
      for (const one of to[kind]) if (!from[kind].has(one)) next[kind].add(one);
      for (const one of from[kind]) if (!to[kind].has(one)) next[kind].delete(one);
    }
    return next;
  };
}

const names = ['k0', 'k1', 'k2', 'k3'];

test(`${rounds} rounds of SIGKILL lose and double nothing`, { skip, timeout: rounds * 60_000 + 120_000 }, async (t) => {
  t.diagnostic(`NONROOT_KILL_SEED=${seed}`);
  const random = generator(seed);
  const daemon = new TestDaemon();
  const pool = { name: 'pool', uuid: uuidOf(1) };
  let client: Client | undefined;
  /** Changes of clients that were killed, which the daemon may still carry out until it is killed itself. */
  let late: ((world: World) => World)[] = [];
  try {
    await daemon.start();
    client = await Client.connect(daemon.uri);
    const poolPath = join(daemon.directory, 'pool');
    mkdirSync(poolPath);
    const poolXml = `<pool type='dir'><name>pool</name><uuid>${pool.uuid}</uuid><target><path>${poolPath}</path></target></pool>`;
    await client.rpc.call(remote, 'storagePoolDefineXml', { xml: poolXml, flags: 0 });
    await client.rpc.call(remote, 'storagePoolCreate', { pool, flags: 0 });
    let world: World = { domains: new Set(), volumes: new Set(), snapshots: new Set() };
    for (const [i, name] of names.entries()) makeDisk(join(daemon.directory, `${name}.qcow2`), `${4 + i}M`);

    const read = async (): Promise<World> => {
      const found: World = { domains: new Set(await client!.names(4)), volumes: new Set(), snapshots: new Set() };
      const { vols } = await client!.rpc.call(remote, 'storagePoolListAllVolumes', { pool, needResults: true, flags: 0 });
      for (const one of vols) {
        assert.ok(!found.volumes.has(one.name), `volume ${one.name} is doubled`);
        found.volumes.add(one.name);
      }
      for (const name of found.domains) {
        const dom = await client!.find(name);
        const { snapshots } = await client!.rpc.call(remote, 'domainListAllSnapshots', { dom, needResults: true, flags: 0 });
        for (const one of snapshots) found.snapshots.add(`${name}/${one.name}`);
      }
      return found;
    };
    interface Change {
      readonly label: string;
      /** What it does to the world when it is done. */
      readonly next: World;
      readonly run: (by: Client) => Promise<unknown>;
    }
    const change = (): Change => {
      const next = copy(world);
      const name = names[random(names.length)]!;
      const defined = world.domains.has(name);
      const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${join(daemon.directory, `${name}.qcow2`)}'/><target dev='vda' bus='virtio'/></disk>`;
      const volume = `v${random(6)}.qcow2`;
      switch (random(8)) {
        case 0:
        case 1:
          if (!defined) {
            next.domains.add(name);
            const xml = idleGuest(name, uuidOf(10 + names.indexOf(name)), disk);
            return { label: `define ${name}`, next, run: (by) => by.define(xml) };
          }
          return { label: `start ${name}`, next, run: async (by) => by.start(await by.find(name)) };
        case 2:
          return {
            label: `destroy ${name}`,
            next,
            run: async (by) => by.rpc.call(remote, 'domainDestroy', { dom: await by.find(name) }),
          };
        case 3:
          return {
            label: `save ${name}`,
            next,
            run: async (by) => by.rpc.call(remote, 'domainManagedSave', { dom: await by.find(name), flags: 0 }),
          };
        case 4:
        case 5: {
          const snapshot = `s${random(3)}`;
          const key = `${name}/${snapshot}`;
          if (world.snapshots.has(key)) {
            next.snapshots.delete(key);
            return {
              label: `delete snapshot ${key}`,
              next,
              run: async (by) =>
                by.rpc.call(remote, 'domainSnapshotDelete', { snap: { name: snapshot, dom: await by.find(name) }, flags: 0 }),
            };
          }
          // Also where the domain is not known yet: a killed client's definition may be carried out in this moment.
          next.domains.add(name);
          next.snapshots.add(key);
          const xml = `<domainsnapshot><name>${snapshot}</name></domainsnapshot>`;
          return {
            label: `snapshot ${key}`,
            next,
            run: async (by) => by.rpc.call(remote, 'domainSnapshotCreateXml', { dom: await by.find(name), xml, flags: 0 }),
          };
        }
        default:
          if (world.volumes.has(volume)) {
            next.volumes.delete(volume);
            const vol = { pool: 'pool', name: volume, key: join(poolPath, volume) };
            return { label: `delete ${volume}`, next, run: (by) => by.rpc.call(remote, 'storageVolDelete', { vol, flags: 0 }) };
          }
          next.volumes.add(volume);
          return {
            label: `create ${volume}`,
            next,
            run: (by) =>
              by.rpc.call(remote, 'storageVolCreateXml', {
                pool,
                xml: `<volume><name>${volume}</name><capacity unit='MiB'>4</capacity><target><format type='qcow2'/></target></volume>`,
                flags: 0,
              }),
          };
      }
    };

    for (let round = 0; round < rounds; round++) {
      const victim = ['daemon', 'emulator', 'client'][random(3)]!;
      const log: string[] = [];
      const worker = await Client.connect(daemon.uri);
      const begin = Date.now();
      const patience = 50 + random(1500);
      let pending: World | undefined;
      const working = (async () => {
        while (Date.now() - begin < patience + 3000) {
          const { label, next, run } = change();
          pending = next;
          log.push(label);
          let failed: unknown;
          await run(worker).catch((error: unknown) => (failed = error));
          if (failed instanceof Error) log.push(`(${failed.message})`);
          // A call whose answer got lost is not decided; one that is refused has changed nothing.
          if (
            failed instanceof Error &&
            /closed|socket|keepalive/i.test(failed.message) &&
            !('is' in failed && /not running/.test(failed.message))
          )
            return;
          if (failed === undefined) world = next;
          pending = undefined;
          if (Date.now() - begin > patience) return;
        }
      })();
      await new Promise((resolve) => setTimeout(resolve, patience));
      if (victim === 'daemon') await daemon.kill();
      else if (victim === 'client') worker.close();
      else {
        const pids = daemon.emulators();
        const pid = pids[random(Math.max(1, pids.length))];
        if (pid !== undefined) process.kill(pid, 'SIGKILL');
      }
      await working;
      worker.close();
      if (victim === 'daemon') {
        client.close();
        await daemon.start();
        client = await Client.connect(daemon.uri);
      }
      const where = `round ${round}, ${victim} killed after: ${log.join(', ')}`;
      // A call that a client left behind is still carried out; a change of each domain waits until it is.
      await new Promise((resolve) => setTimeout(resolve, victim === 'client' ? 1000 : 0));
      for (const name of await client.names(4)) {
        const title = { type: 1, metadata: `round ${round}`, key: undefined, uri: undefined, flags: 2 };
        await client.rpc.call(remote, 'domainSetMetadata', { dom: await client.find(name), ...title });
      }
      const possible = [world, ...(pending ? [pending] : [])];
      const accepted = [...possible, ...possible.flatMap((one) => late.map((change) => change(one)))].map(text);
      let found = await read();
      await until(
        `${where}: found ${text(found)}, expected ${accepted.join(' or ')}`,
        async () => {
          found = await read();
          return accepted.includes(text(found));
        },
        20_000,
      );
      if (victim === 'daemon' || !possible.map(text).includes(text(found))) late = [];
      else if (pending && text(found) !== text(pending)) late = [difference(world, pending)];
      world = found;
      // Each emulator is one running guest's, each running guest has one.
      await until(
        `${where}: one emulator for each running guest`,
        async () => {
          const running = await client!.names(1);
          return running.length === daemon.emulators().length;
        },
        30_000,
      );
    }
    t.diagnostic(text(world));
  } finally {
    client?.close();
    await daemon.close();
  }
});
