// States of a domain, their reasons and the life-cycle events, by libvirt's numbers (libvirt-domain.h, 9.0).

export const state = { none: 0, running: 1, blocked: 2, paused: 3, shutdown: 4, shutoff: 5, crashed: 6, pmSuspended: 7 } as const;
export type State = (typeof state)[keyof typeof state];

export const runningReason = {
  ...{ unknown: 0, booted: 1, migrated: 2, restored: 3, fromSnapshot: 4, unpaused: 5, migrationCanceled: 6, saveCanceled: 7 },
  ...{ wakeup: 8, crashed: 9, postcopy: 10 },
} as const;
export const pausedReason = {
  ...{ unknown: 0, user: 1, migration: 2, save: 3, dump: 4, ioError: 5, watchdog: 6, fromSnapshot: 7, shuttingDown: 8 },
  ...{ snapshot: 9, crashed: 10, startingUp: 11 },
} as const;
export const shutoffReason = {
  ...{ unknown: 0, shutdown: 1, destroyed: 2, crashed: 3, migrated: 4, saved: 5, failed: 6, fromSnapshot: 7, daemon: 8 },
} as const;
export const shutdownReason = { unknown: 0, user: 1 } as const;
export const crashedReason = { unknown: 0, panicked: 1 } as const;

/** Event and detail of each life-cycle message. */
export const lifecycle = {
  defined: [0, 0],
  updated: [0, 1],
  definedRenamed: [0, 2],
  definedFromSnapshot: [0, 3],
  undefined: [1, 0],
  undefinedRenamed: [1, 1],
  booted: [2, 0],
  startedMigrated: [2, 1],
  startedRestored: [2, 2],
  startedFromSnapshot: [2, 3],
  wakeup: [2, 4],
  paused: [3, 0],
  suspendedMigrated: [3, 1],
  suspendedIoError: [3, 2],
  suspendedWatchdog: [3, 3],
  suspendedRestored: [3, 4],
  suspendedFromSnapshot: [3, 5],
  unpaused: [4, 0],
  resumedMigrated: [4, 1],
  resumedFromSnapshot: [4, 2],
  stoppedShutdown: [5, 0],
  stoppedDestroyed: [5, 1],
  stoppedCrashed: [5, 2],
  stoppedMigrated: [5, 3],
  stoppedSaved: [5, 4],
  stoppedFailed: [5, 5],
  stoppedFromSnapshot: [5, 6],
  shutdownFinished: [6, 0],
  shutdownGuest: [6, 1],
  shutdownHost: [6, 2],
  pmSuspended: [7, 0],
  pmSuspendedDisk: [7, 1],
  panicked: [8, 0],
} as const satisfies Readonly<Record<string, readonly [number, number]>>;
export type Lifecycle = keyof typeof lifecycle;

/** Names of the states as snapshots and status files have them. */
export const stateNames = ['nostate', 'running', 'blocked', 'paused', 'shutdown', 'shutoff', 'crashed', 'pmsuspended'] as const;
