// QMP commands about the machine as a whole: whether it runs, resets, power, names. QEMU 7.2, qapi/run-state.json, qapi/misc.json.

import { hasSleep } from '../../machine/tables.ts';
import { bool, enumeration, object, optional, str } from '../../rpc/qmp/schema.ts';
import { action, type QmpTable, query } from './row.ts';

const runState = enumeration('RunState', [
  'debug',
  'inmigrate',
  'internal-error',
  'io-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'restore-vm',
  'running',
  'save-vm',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'colo',
]);
const statusInfo = object('StatusInfo', { running: bool, singlestep: bool, status: runState });
const watchdogAction = enumeration('WatchdogAction', ['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi']);

export const statusCommands: QmpTable = {
  'query-status': query({}, statusInfo, (e) => ({ running: e.status === 'running', singlestep: false, status: e.status })),
  stop: action({}, (e) => e.stop()),
  cont: action({}, (e) => e.contWithDisks()),
  quit: action({}, (e) => {
    // The answer goes out first.
    e.host.timers.after(0, () => e.quit('host-qmp-quit'));
  }),
  system_reset: action({}, (e) => e.reset()),
  'x-set-accel': action({ accel: enumeration('AccelName', ['dbt', 'tcg', 'kvm']) }, (e, { accel }) =>
    e.setAccel(accel === 'kvm' ? 'kvm' : 'dbt'),
  ),
  system_wakeup: action({}, (e) => e.wakeup()),
  system_powerdown: action({}, (e) => e.powerdown()),
  'set-action': action(
    {
      reboot: optional(enumeration('RebootAction', ['reset', 'shutdown'])),
      shutdown: optional(enumeration('ShutdownAction', ['poweroff', 'pause'])),
      panic: optional(enumeration('PanicAction', ['pause', 'shutdown', 'exit-failure', 'none'])),
      watchdog: optional(watchdogAction),
    },
    (e, actions) => e.setActions(actions),
  ),
  'watchdog-set-action': action({ action: watchdogAction }, (e, { action: watchdog }) => e.setActions({ watchdog })),
  'query-name': query({}, object('NameInfo', { name: optional(str) }), ({ config: { name } }) =>
    name === undefined ? {} : { name },
  ),
  'query-uuid': query({}, object('UuidInfo', { UUID: str }), (e) => ({
    UUID: e.config.uuid ?? '00000000-0000-0000-0000-000000000000',
  })),
  'query-kvm': query({}, object('KvmInfo', { enabled: bool, present: bool }), ({ config, machine }) => ({
    enabled: (machine?.accel ?? config.accel) === 'kvm' || (config.machine.board === 'none' && config.accels.includes('kvm')),
    present: config.accels.includes('kvm'),
  })),
  'query-target': query({}, object('TargetInfo', { arch: enumeration('SysEmuTarget', ['x86_64']) }), () => ({
    arch: 'x86_64' as const,
  })),
  'query-current-machine': query({}, object('CurrentMachineParams', { 'wakeup-suspend-support': bool }), (e) => ({
    'wakeup-suspend-support': e.machine !== undefined && hasSleep(e.machine.board.config),
  })),
};
