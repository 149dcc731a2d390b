// Options of `nonroot-system-x86_64` about its process and the machine's course: names, files, messages, when it starts and ends.

import { keptByDefault } from './sandbox.ts';
import { addDevice } from './system-device-options.ts';
import { does, isHelp, list, parameters, type SystemOption } from './system-option.ts';
import { oneOf, onOff, properties, Refused, type Settings } from './system-settings.ts';

/** Trace categories, for `-d`. */
const traces: readonly (readonly [string, string])[] = [
  ['bus', 'accesses to ports and addresses where nothing is'],
  ['cpu', 'undefined opcodes'],
  ['tiers', 'what the translator has counted, at the end'],
  ['accel', 'instructions that KVM left to the translator'],
  ['firmware', 'what the firmware writes to its debug console'],
  ['guest_errors', 'what devices find wrong with what the guest does'],
];

function trace(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return list('Log items (comma separated)', traces);
  s.trace = text.split(',');
  for (const name of s.trace) {
    if (!traces.some(([known]) => known === name)) throw new Refused(`-d ${name}: not supported; -d help lists what is`);
  }
}

const allowDeny = ['allow', 'deny'];

function watchdogAction(s: Settings, option: string, value: string): void {
  const accepted = ['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi'];
  s.actions.watchdog = oneOf(option, value, accepted) as 'none';
}

export const processOptions: readonly SystemOption[] = [
  {
    names: ['-readconfig'],
    value: 'FILE',
    help: 'options from a file, in this place',
    // The file has taken its place before the command line is read.
    apply: does(() => {}),
  },
  {
    names: ['-set'],
    value: 'device.ID.PROPERTY=VALUE',
    help: 'a property of a device that was named before',
    apply: does((s, text) => {
      const found = /^(\w+)\.([\w.-]+)\.([\w-]+)=(.*)$/s.exec(text);
      const [, group, id, name = '', value = ''] = found ?? [];
      if (!found || group !== 'device') throw new Refused(`-set ${text}: not supported; accepted: device.ID.PROPERTY=VALUE`);
      const device = s.devices.find((d) => d.id === id);
      if (!device) throw new Refused(`-set ${text}: there is no device '${id}'`);
      const all = s.devices;
      s.devices = [];
      addDevice(s, { ...device, [name]: value }, text);
      const changed = s.devices[0]!;
      s.devices = all.map((d) => (d === device ? changed : d));
    }),
  },
  {
    names: ['-nodefaults'],
    help: 'no serial port, monitor or network card that was not asked for',
    apply: does((s) => {
      s.nodefaults = true;
    }),
  },
  { names: ['-no-user-config', '-nouserconfig'], help: 'read no configuration files (there are none)', apply: does(() => {}) },
  {
    names: ['-no-reboot'],
    help: 'end when the guest resets',
    apply: does((s) => {
      s.noReboot = true;
    }),
  },
  {
    names: ['-loadvm'],
    value: 'TAG',
    help: 'begin with a snapshot of the machine',
    apply: does((s, text) => {
      s.loadvm = text;
    }),
  },
  {
    names: ['-incoming'],
    value: 'tcp:HOST:PORT|unix:PATH|fd:N|exec:COMMAND|file:PATH|defer',
    help: 'take a machine over from there, or wait for migrate-incoming',
    apply: does((s, text) => {
      s.incoming = text;
    }),
  },
  {
    names: ['-no-shutdown'],
    help: 'keep the machine, stopped, when the guest powers off',
    apply: does((s) => {
      s.noShutdown = true;
    }),
  },
  {
    names: ['-action'],
    value: 'reboot=reset|shutdown,shutdown=poweroff|pause,panic=…,watchdog=…',
    help: 'what the ends of the guest do',
    group: 'action',
    parameters: parameters({ string: 'reboot shutdown panic watchdog' }),
    apply: does((s, text) =>
      properties('-action', text, '', {
        reboot: (v) => {
          s.noReboot = oneOf('-action reboot=', v, ['reset', 'shutdown']) === 'shutdown';
        },
        shutdown: (v) => {
          s.noShutdown = oneOf('-action shutdown=', v, ['poweroff', 'pause']) === 'pause';
        },
        panic: (v) => {
          s.actions.panic = oneOf('-action panic=', v, ['pause', 'shutdown', 'exit-failure', 'none']) as 'none';
        },
        watchdog: (v) => watchdogAction(s, '-action watchdog=', v),
      }),
    ),
  },
  {
    names: ['-watchdog-action'],
    value: 'reset|shutdown|poweroff|pause|debug|none|inject-nmi',
    help: 'as -action watchdog=',
    apply: does((s, v) => watchdogAction(s, '-watchdog-action ', v)),
  },
  {
    names: ['-S'],
    help: "wait for the monitor's cont",
    apply: does((s) => {
      s.paused = true;
    }),
  },
  { names: ['-d'], value: 'ITEM,...', help: 'log these items; -d help lists them', apply: trace },
  {
    names: ['-D'],
    value: 'FILE',
    help: 'log to FILE in place of standard error',
    apply: does((s, v) => {
      s.log = v;
    }),
  },
  {
    names: ['-name'],
    value: '[guest=]NAME[,process=NAME][,debug-threads=on|off]',
    help: "the guest's name, for -msg and monitors",
    group: 'name',
    parameters: parameters({ string: 'guest process', boolean: 'debug-threads' }),
    apply: does((s, text) =>
      properties('-name', text, 'guest', {
        guest: (v) => {
          s.name = v;
        },
        process: (v) => {
          s.process = v;
        },
        // Threads have their host's names; there is nothing to switch.
        'debug-threads': (v) => void onOff('-name debug-threads=', v),
      }),
    ),
  },
  {
    names: ['-pidfile'],
    value: 'FILE',
    help: "write the process's number to FILE while it runs",
    apply: does((s, v) => {
      s.pidfile = v;
    }),
  },
  {
    names: ['-daemonize'],
    help: 'go on in the background once everything is set up',
    apply: does((s) => {
      s.daemonize = true;
    }),
  },
  {
    names: ['-sandbox'],
    value: 'on|off[,obsolete=…][,elevateprivileges=…][,spawn=…][,resourcecontrol=…][,network=…][,files=…][,folder=…]',
    help: 'take rights from the process that it does not need; each is allow or deny, folder= stays reachable (Linux)',
    group: 'sandbox',
    parameters: parameters({
      boolean: 'enable',
      string: 'obsolete elevateprivileges spawn resourcecontrol network files folder',
    }),
    apply: does((s, text) => {
      const kept = keptByDefault();
      const allowed = (name: string, v: string): boolean => oneOf(`-sandbox ${name}=`, v, allowDeny) === 'allow';
      let on = false;
      properties('-sandbox', text, 'enable', {
        enable: (v) => {
          on = onOff('-sandbox ', v);
        },
        obsolete: (v) => {
          kept.obsolete = allowed('obsolete', v);
        },
        elevateprivileges: (v) => {
          const how = oneOf('-sandbox elevateprivileges=', v, [...allowDeny, 'children']);
          kept.elevatePrivileges = how === 'children' ? how : how === 'allow';
        },
        spawn: (v) => {
          kept.spawn = allowed('spawn', v);
        },
        resourcecontrol: (v) => {
          kept.resourceControl = allowed('resourcecontrol', v);
        },
        network: (v) => {
          kept.network = allowed('network', v);
        },
        files: (v) => {
          kept.files = allowed('files', v);
        },
        folder: (v) => {
          kept.folder = v;
        },
      });
      s.sandbox = on ? kept : undefined;
    }),
  },
  {
    names: ['-msg'],
    value: '[timestamp=on|off][,guest-name=on|off]',
    help: 'how messages begin',
    group: 'msg',
    parameters: parameters({ boolean: 'timestamp guest-name' }),
    apply: does((s, text) =>
      properties('-msg', text, '', {
        timestamp: (v) => {
          s.message.timestamp = onOff('-msg timestamp=', v);
        },
        'guest-name': (v) => {
          s.message.guestName = onOff('-msg guest-name=', v);
        },
      }),
    ),
  },
];
