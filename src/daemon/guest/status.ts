// The status file of a running guest: what a daemon that is started again needs to manage it on.
import { formatDomain } from '../../domain/domain.ts';
import type { DaemonHost, ProcessId } from '../host.ts';
import { type KeptJob, keepJob } from './block-job-ends.ts';
import type { BackupState, Guest } from './guest.ts';
import type { Owned } from './ownership.ts';

export interface Status {
  readonly version: 1;
  readonly name: string;
  readonly uuid: string;
  readonly id: number;
  /** Absent while the process is being started. */
  readonly process?: ProcessId;
  readonly monitorPath: string;
  readonly directory: string;
  readonly ports: readonly number[];
  readonly state: number;
  readonly reason: number;
  readonly persistent: boolean;
  readonly ending?: string;
  readonly originalMemory: number;
  /** The running definition, with its secrets. */
  readonly domain: string;
  readonly confined?: boolean;
  /** Files that the emulator's user was given, with whose they were. */
  readonly owned?: readonly Owned[];
  readonly blockJobs: readonly KeptJob[];
  readonly backup?: BackupState;
}

export const statusPath = (runDirectory: string, name: string): string => `${runDirectory}/qemu/${name}.json`;

export async function saveStatus(host: DaemonHost, runDirectory: string, guest: Guest): Promise<void> {
  const { run } = guest;
  if (run === undefined || run.stopped) return;
  const status: Status = {
    version: 1,
    name: guest.name,
    uuid: guest.uuid,
    id: run.id,
    process: run.process,
    monitorPath: run.monitorPath,
    directory: run.directory,
    ports: run.ports,
    state: guest.state,
    reason: guest.reason,
    persistent: guest.persistent,
    ...(run.ending !== undefined && { ending: run.ending }),
    originalMemory: run.originalMemory,
    domain: formatDomain(run.domain, { secure: true }),
    ...(run.confined && { confined: true }),
    ...(run.owned.length > 0 && { owned: run.owned }),
    blockJobs: [...run.blockJobs.values()].map(keepJob),
    ...(guest.backup && { backup: guest.backup }),
  };
  await host.files.write(statusPath(runDirectory, guest.name), JSON.stringify(status));
}

export function parseStatus(text: string): Status | undefined {
  try {
    const value = JSON.parse(text) as Status;
    return value.version === 1 ? value : undefined;
  } catch {
    return undefined;
  }
}
