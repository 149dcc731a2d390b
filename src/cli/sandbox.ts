// What `-sandbox` takes from the emulator's process (QEMU 7.2, "System Emulation", section "Invocation", `-sandbox`).

/** Rights that the process keeps once its machine runs. */
export interface Sandbox {
  /** System calls that programs of today do not use. */
  obsolete: boolean;
  /** Calls that change user and group. `children`: the process may, what it executes gains nothing. */
  elevatePrivileges: boolean | 'children';
  /** New processes and programs. */
  spawn: boolean;
  /** Calls that change priorities, affinities and limits. */
  resourceControl: boolean;
  /** Internet sockets. Ours; QEMU has no such property. */
  network: boolean;
  /** Files that the command line does not name. Ours; QEMU has no such property. */
  files: boolean;
  /** With `files` denied: a folder all of which stays reachable, for whoever manages the process. Ours. */
  folder?: string;
}

/**
 * What a confined process may do with a file, or with all that is below a folder. `create`: write to a file that is made before where it is
 * not there; `socket`: make sockets in the folder of this path; `folder`: everything below it.
 */
export type Access = 'read' | 'write' | 'create' | 'run' | 'socket' | 'folder';
export interface Grant {
  readonly path: string;
  readonly access: Access;
  /**
   * For `read` and `write`: the file comes as a descriptor, open before the process is confined, and its path leads nowhere. Who uses it last closes
   * the last way to it.
   */
  readonly held?: boolean;
}

/** What QEMU keeps under `-sandbox on` alone. */
export const keptByDefault = (): Sandbox => ({
  obsolete: false,
  elevatePrivileges: true,
  spawn: true,
  resourceControl: true,
  network: true,
  files: true,
});

/** Nothing but what a machine needs while it runs. */
export const keptByNothing: Readonly<Sandbox> = {
  obsolete: false,
  elevatePrivileges: false,
  spawn: false,
  resourceControl: false,
  network: false,
  files: false,
};
