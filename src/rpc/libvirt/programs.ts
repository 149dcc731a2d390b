// The programs of a hypervisor connection: libvirt's own and the one for what only QEMU has.
// libvirt's remote and qemu protocols, version 1, as of 9.0.
import { programNumbers } from '../packet.ts';
import { hyper, int, nothing, optional, struct, unsigned } from '../xdr.ts';
import { connectProcedures } from './connect.ts';
import { domainProcedures } from './domain.ts';
import { domainJobProcedures } from './domain-jobs.ts';
import { eventMessages, eventProcedures } from './events.ts';
import { networkProcedures } from './network.ts';
import { message, proc, program } from './procedure.ts';
import { storageProcedures } from './storage.ts';
import { domain, optionalText, text } from './types.ts';

export const remote = program(
  'remote',
  programNumbers.remote,
  1,
  {
    ...connectProcedures,
    ...domainProcedures,
    ...domainJobProcedures,
    ...networkProcedures,
    ...storageProcedures,
    ...eventProcedures,
  },
  eventMessages,
);

const command = struct({ dom: domain, cmd: text, flags: unsigned });

export const qemu = program(
  'qemu',
  programNumbers.qemu,
  1,
  {
    domainMonitorCommand: proc(1, command, struct({ result: text })),
    domainAttach: proc(2, struct({ pid: unsigned, flags: unsigned }), struct({ dom: domain })),
    /** `timeout` in seconds; -2 blocks, -1 takes the default, 0 does not wait. */
    domainAgentCommand: proc(
      3,
      struct({ dom: domain, cmd: text, timeout: int, flags: unsigned }),
      struct({ result: optionalText }),
    ),
    connectDomainMonitorEventRegister: proc(
      4,
      struct({ dom: optional(domain), event: optionalText, flags: unsigned }),
      struct({ callbackId: int }),
    ),
    connectDomainMonitorEventDeregister: proc(5, struct({ callbackId: int }), nothing),
    domainMonitorCommandWithFiles: proc(7, command, struct({ result: text }), { fds: 'call' }),
  },
  {
    domainMonitorEvent: message(
      6,
      struct({ callbackId: int, dom: domain, event: text, seconds: hyper, micros: unsigned, details: optionalText }),
    ),
  },
);
