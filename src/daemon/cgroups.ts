// Control groups: one for each guest that has limits, below this process's own where the host lets us make groups.
// Kernel documentation, admin-guide/cgroup-v1 and admin-guide/cgroup-v2.
import { type DaemonHost, wait } from './host.ts';

export type Controller = 'cpu' | 'memory' | 'io';

interface Root {
  readonly version: 1 | 2;
  /** Where guests' groups are made. */
  readonly path: string;
  /** Of version 2: the root of the hierarchy, whose controllers are handed down. */
  readonly mount: string;
}

/** A group of one controller. */
export interface Group {
  readonly version: 1 | 2;
  readonly path: string;
}

const partition = 'machine';
const firstVersion: Readonly<Record<Controller, string>> = { cpu: 'cpu', memory: 'memory', io: 'blkio' };

/** The directory of a controller's hierarchy, by the kernel's lists of mounts and of this process's groups; undefined when there is none. */
export function rootOf(
  controller: Controller,
  mounts: string,
  own: string,
  controllers: ReadonlyMap<string, string>,
): Root | undefined {
  const wanted = firstVersion[controller];
  const rows = mounts.split('\n').map((line) => {
    const [left = '', right = ''] = line.split(' - ');
    const [type = '', , options = ''] = right.split(' ');
    return { type, options: options.split(','), mount: left.split(' ')[4] ?? '' };
  });
  const first = rows.find((one) => one.type === 'cgroup' && one.options.includes(wanted));
  if (first) {
    const line = own.split('\n').find((one) => one.split(':')[1]?.split(',').includes(wanted));
    const below = (line?.split(':')[2] ?? '/').replace(/\/$/, '');
    return { version: 1, mount: first.mount, path: `${first.mount}${below}/${partition}` };
  }
  const second = rows.find((one) => one.type === 'cgroup2' && controllers.get(one.mount)?.split(/\s+/).includes(controller));
  return second && { version: 2, mount: second.mount, path: `${second.mount}/${partition}` };
}

export class Cgroups {
  readonly #host: DaemonHost;

  constructor(host: DaemonHost) {
    this.#host = host;
  }
  async #root(controller: Controller): Promise<Root | undefined> {
    const { files } = this.#host;
    const mounts = (await files.read('/proc/self/mountinfo')) ?? '';
    const own = (await files.read('/proc/self/cgroup')) ?? '';
    const unified = mounts.split('\n').flatMap((line) => (line.includes(' - cgroup2 ') ? [line.split(' ')[4]!] : []));
    const lists = await Promise.all(
      unified.map(async (mount) => [mount, ((await files.read(`${mount}/cgroup.controllers`)) ?? '').trim()] as const),
    );
    return rootOf(controller, mounts, own, new Map(lists));
  }
  /** The guest's group, made if need be, with its process in it; undefined where the host does not allow that. */
  async join(name: string, controller: Controller, pid: number): Promise<Group | undefined> {
    const root = await this.#root(controller);
    if (!root) return undefined;
    const path = `${root.path}/${name}`;
    const { files } = this.#host;
    try {
      const made = (await files.status(path)) === undefined;
      await files.makeDirectory(path, 0o755);
      if (root.version === 2) {
        await this.write(`${root.mount}/cgroup.subtree_control`, `+${controller}`);
        await this.write(`${root.path}/cgroup.subtree_control`, `+${controller}`);
      }
      if (made) await this.write(`${path}/cgroup.procs`, String(pid));
      return { version: root.version, path };
    } catch (error) {
      this.#host.log(`${path}: ${(error as Error).message}: no limits by control groups`);
      return undefined;
    }
  }
  /** A part of a guest's group for some of its threads. @throws what the file system throws */
  async part(group: Group, name: string, controller: Controller, threads: readonly number[], whole?: number): Promise<Group> {
    const { files } = this.#host;
    const path = `${group.path}/${name}`;
    if ((await files.status(path)) === undefined) {
      await files.makeDirectory(path, 0o755);
      if (group.version === 2) {
        await this.write(`${path}/cgroup.type`, 'threaded');
        await this.write(`${group.path}/cgroup.subtree_control`, `+${controller}`);
      }
    }
    if (whole !== undefined) await this.write(`${path}/cgroup.procs`, String(whole));
    for (const thread of threads) await this.write(`${path}/${group.version === 2 ? 'cgroup.threads' : 'tasks'}`, String(thread));
    return { ...group, path };
  }
  /** Undefined for a file that this kernel does not have. */
  async read(path: string): Promise<string | undefined> {
    return (await this.#host.files.read(path))?.trim();
  }
  async write(path: string, value: string): Promise<void> {
    const file = await this.#host.files.open(path, 'write');
    try {
      await file.write(0, new TextEncoder().encode(value));
    } finally {
      await file.close();
    }
  }
  /** Removes what was made for a guest that is gone. */
  async remove(name: string): Promise<void> {
    const { files } = this.#host;
    for (const controller of ['cpu', 'memory', 'io'] as const) {
      const root = await this.#root(controller);
      const path = root && `${root.path}/${name}`;
      if (path === undefined || (await files.status(path)) === undefined) continue;
      for (const part of await files.list(path)) {
        if (/^(vcpu\d+|iothread\d+|emulator)$/.test(part)) await this.#removeOne(`${path}/${part}`);
      }
      await this.#removeOne(path);
    }
  }
  /** A group is busy until the kernel has put its last process away. */
  async #removeOne(path: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#host.files.removeDirectory(path);
      } catch (error) {
        if (attempt === 20) return this.#host.log(`${path}: ${(error as Error).message}`);
        await wait(this.#host, 50);
      }
    }
  }
}
