// Whether a change is for the running guest, its definition, or both: the flags that most changes take (libvirt 9.0's rules).
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { notRunning } from '../errors.ts';
import type { Guest } from './guest.ts';

export interface Affects {
  readonly live: boolean;
  readonly config: boolean;
}

/** 0 means what is: the run when there is one. @throws {LibvirtError} 55 for what is not there */
export function affects(guest: Guest, flags: number): Affects {
  const [wantsLive, wantsConfig] = [(flags & 1) !== 0, (flags & 2) !== 0];
  const current = !wantsLive && !wantsConfig;
  const live = wantsLive || (current && guest.active);
  const config = wantsConfig || (current && !guest.active);
  if (live && !guest.active) throw notRunning();
  if (config && !guest.persistent) {
    throw libvirtError('operationInvalid', 'qemu', 'transient domains do not have any persistent config');
  }
  return { live, config };
}

/** The definition that a query of these flags is about. @throws {LibvirtError} as `affects`; and for both at once */
export function queried(guest: Guest, flags: number) {
  if ((flags & 3) === 3) throw libvirtError('invalidArg', 'qemu', 'cannot query live and config together');
  const { live } = affects(guest, flags);
  return live ? guest.run!.domain : guest.config!;
}
