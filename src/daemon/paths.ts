// Where the daemon keeps what: definitions, what runs, images, logs. Contract, section "The daemon"; libvirt's names below each root.

export interface Paths {
  /** Definitions that outlive the host's restart. */
  readonly config: string;
  /** What runs: gone after the host's restart. */
  readonly run: string;
  /** Images, saved guests, snapshots. */
  readonly lib: string;
  readonly log: string;
  readonly cache: string;
}

/** Everything below one directory, for a private instance. */
export const privatePaths = (root: string): Paths => ({
  config: `${root}/etc`,
  run: `${root}/run`,
  lib: `${root}/lib`,
  log: `${root}/log`,
  cache: `${root}/cache`,
});

export const systemPaths: Paths = {
  config: '/etc/nonroot',
  run: '/run/nonroot',
  lib: '/var/lib/nonroot',
  log: '/var/log/nonroot',
  cache: '/var/cache/nonroot',
};

/** The XDG directories of a user. */
export function userPaths(environment: Readonly<Record<string, string | undefined>>): Paths {
  const home = environment['HOME'] ?? '/';
  const config = environment['XDG_CONFIG_HOME'] ?? `${home}/.config`;
  const data = environment['XDG_DATA_HOME'] ?? `${home}/.local/share`;
  const cache = environment['XDG_CACHE_HOME'] ?? `${home}/.cache`;
  const run = environment['XDG_RUNTIME_DIR'] ?? cache;
  return {
    config: `${config}/nonroot`,
    run: `${run}/nonroot`,
    lib: `${data}/nonroot`,
    log: `${cache}/nonroot/log`,
    cache: `${cache}/nonroot`,
  };
}

export const socketName = 'libvirt-sock';
export const readOnlySocketName = 'libvirt-sock-ro';

/** The last part of a path. */
export const baseName = (path: string): string => path.slice(path.lastIndexOf('/') + 1);
/** The directory of a path. */
export const directoryOf = (path: string): string => path.slice(0, Math.max(1, path.lastIndexOf('/')));
