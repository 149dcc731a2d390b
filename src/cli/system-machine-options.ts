// Options of `nonroot-system-x86_64` about the machine itself: board, CPU, memory, kernel, clock (QEMU 7.2, "System Emulation", section
// "Invocation").

import { findMachine, machineTypes } from '../machine/machine-types.ts';
import type { MicrovmParts } from '../machine/microvm.ts';
import { cpuHelp, dirtyRingEntries, parseCpu, parseCpus, parseMemory } from '../machine/options.ts';
import { parseBool } from '../monitor/keyval.ts';
import { machineProperties } from '../monitor/qom/types.ts';
import { does, isHelp, parameters, type SystemOption } from './system-option.ts';
import { integer, oneOf, onOff, properties, Refused, rtcOffset, type Settings } from './system-settings.ts';

export const accels: readonly (readonly [string, string])[] = [
  ['dbt', 'binary translation, a thread for each vCPU (default)'],
  ['tcg', 'alias of dbt'],
  ['kvm', 'the kernel, by /dev/kvm'],
];
export const accelNames: readonly string[] = accels.map(([name]) => name);

/** Options of `-M microvm` and what they change. */
const microvmOptions = {
  pic: 'pic',
  pit: 'pit',
  rtc: 'rtc',
  'isa-serial': 'isaSerial',
  ioapic2: 'ioapic2',
  'auto-kernel-cmdline': 'autoKernelCommandLine',
} as const satisfies Readonly<Record<string, keyof MicrovmParts>>;
/** Those of them that take `auto`, which is `on`. */
const withAuto = ['pic', 'pit', 'rtc', 'ioapic2'];

/** Options of `-machine` that no other board has. */
export const microvmOnly: readonly string[] = [...Object.keys(microvmOptions), 'pcie', 'x-option-roms'].filter(
  (key) => !['pic', 'pit', 'rtc'].includes(key),
);

/** Properties of a machine whose only accepted value is what this machine is. */
const fixed: Readonly<Record<string, readonly string[]>> = {
  usb: ['on', 'off'],
  vmport: ['on', 'off', 'auto'],
  smm: ['on', 'off', 'auto'],
  graphics: ['off', 'on'],
  'dump-guest-core': ['on', 'off'],
  'mem-merge': ['on', 'off'],
  'memory-encryption': [],
  'kernel-irqchip': ['on', 'split', 'off'],
  i8042: ['on'],
  pcie: ['off', 'auto'],
  'x-option-roms': ['on', 'off'],
  sata: ['on', 'off'],
  smbus: ['on', 'off'],
};

function machine(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return machineHelp();
  properties('-machine', text, 'type', {
    type: (v) => {
      const found = findMachine(v);
      if (!found)
        throw new Refused(
          `-machine ${v}: not supported; accepted: ${machineTypes.flatMap((m) => [m.alias ?? m.name]).join(', ')}`,
        );
      s.machine = found;
    },
    accel: (v) => {
      s.accel = v.split(':');
    },
    hpet: (v) => {
      s.hpet = onOff('-machine hpet=', v);
    },
    acpi: (v) => {
      s.acpi = v === 'auto' || onOff('-machine acpi=', v);
    },
    pflash0: (v) => void s.machineProperties.set('pflash0', v),
    pflash1: (v) => void s.machineProperties.set('pflash1', v),
    'memory-backend': (v) => void s.machineProperties.set('memory-backend', v),
    ...Object.fromEntries(
      Object.entries(microvmOptions).map(([key, part]) => [
        key,
        (v: string) => {
          const is = withAuto.includes(key) && v === 'auto' ? true : onOff(`-machine ${key}=`, v);
          s.microvm[part] = is;
          s.machineProperties.set(key, v);
        },
      ]),
    ),
    ...Object.fromEntries(
      Object.entries(fixed).map(([key, accepted]) => [
        key,
        (v: string) => {
          oneOf(`-machine ${key}=`, v, accepted);
          s.machineProperties.set(key, v);
        },
      ]),
    ),
  });
}

/** As QEMU lists machines: an alias has a line of its own. */
const machineHelp = (): string => {
  const rows = machineTypes.flatMap((m) => [
    ...(m.alias === undefined ? [] : [[m.alias, `${m.description} (alias of ${m.name})`] as const]),
    [m.name, m.isDefault ? `${m.description} (default)` : m.description] as const,
  ]);
  return `Supported machines are:\n${rows.map(([name, text]) => `${name.padEnd(20)} ${text}\n`).join('')}`;
};

function accel(s: Settings, text: string): string | undefined {
  if (isHelp(text)) return `Accelerators supported in QEMU binary:\n${accelNames.map((n) => `${n}\n`).join('')}`;
  properties('-accel', text, 'accel', {
    accel: (v) => s.accel.push(v),
    thread: (v) => oneOf('-accel thread=', v, ['multi', 'single']),
    'tb-size': (v) => integer('-accel tb-size=', v, 0, 65536),
    // How often a block runs before it is translated: 0, or left to the translator.
    threshold: (v) => {
      oneOf('-accel threshold=', v, ['0']);
      s.eager = true;
    },
    // Whether translated code is kept for later runs.
    cache: (v) => {
      oneOf('-accel cache=', v, ['on', 'off']);
      s.translationCache = v === 'on';
    },
    'dirty-ring-size': (v) => {
      const { min, max } = dirtyRingEntries;
      const n = /^\d+$/.test(v) ? Number(v) : -1;
      if (n !== 0 && (n < min || n > max || (n & (n - 1)) !== 0))
        throw new Refused(`-accel dirty-ring-size=${v}: accepted are 0 and powers of two from ${min} to ${max}`);
      s.dirtyRing = n;
    },
    'kernel-irqchip': (v) => {
      oneOf('-accel kernel-irqchip=', v, ['on', 'off', 'split']);
      s.machineProperties.set('kernel-irqchip', v);
    },
  });
}

function cpu(s: Settings, text: string): string | undefined {
  if (isHelp(text)) {
    const { models, features } = cpuHelp();
    return `Available CPUs:\n${models.map((m) => `x86 ${m}\n`).join('')}\nRecognized CPUID flags:\n${wrap(features)}\n`;
  }
  s.cpu = parseCpu(text);
}

/** Words in lines of at most 80 characters. */
function wrap(words: readonly string[]): string {
  const lines = [' '];
  for (const word of words) {
    if (lines.at(-1)!.length + 1 + word.length > 80) lines.push(' ');
    lines.push(`${lines.pop()} ${word}`);
  }
  return lines.join('\n');
}

/** vCPUs and their arrangement; what is left out follows from the rest, sockets first, as QEMU 6.2 and later do. */
export function topologyOf(s: Settings): {
  cpus: number;
  maxcpus: number;
  sockets: number;
  dies: number;
  cores: number;
  threads: number;
} {
  const { smp } = s;
  const dies = smp.dies ?? 1;
  const known = (smp.sockets ?? 1) * dies * (smp.cores ?? 1) * (smp.threads ?? 1);
  let maxcpus = smp.maxcpus ?? Math.max(smp.cpus ?? 0, known);
  const missing = (['cores', 'sockets', 'threads'] as const).find((n) => smp[n] === undefined);
  // What nobody gave takes what is left: cores before sockets before threads.
  const rest = Math.max(Math.floor(maxcpus / known), 1);
  const counts = { sockets: smp.sockets ?? 1, cores: smp.cores ?? 1, threads: smp.threads ?? 1 };
  if (missing) counts[missing] = rest;
  const all = counts.sockets * dies * counts.cores * counts.threads;
  if (smp.maxcpus === undefined && smp.cpus === undefined) maxcpus = all;
  const cpus = smp.cpus ?? maxcpus;
  if (all !== maxcpus)
    throw new Refused(
      `-smp: sockets (${counts.sockets}) * dies (${dies}) * cores (${counts.cores}) * threads (${counts.threads}) != maxcpus (${maxcpus})`,
    );
  if (maxcpus < cpus) throw new Refused(`-smp: maxcpus (${maxcpus}) must be at least cpus (${cpus})`);
  return { cpus, maxcpus, dies, ...counts };
}

function smp(s: Settings, text: string): void {
  const set = (name: keyof Settings['smp']) => (v: string) => {
    s.smp[name] = parseCpus(v);
  };
  properties('-smp', text, 'cpus', {
    cpus: set('cpus'),
    maxcpus: set('maxcpus'),
    sockets: set('sockets'),
    dies: (v) => {
      s.smp.dies = Number(oneOf('-smp dies=', v, ['1']));
    },
    clusters: (v) => oneOf('-smp clusters=', v, ['1']),
    cores: set('cores'),
    threads: set('threads'),
  });
}

function boot(s: Settings, text: string): void {
  const letters = (name: 'order' | 'once') => (v: string) => {
    if (!/^[a-dnp]*$/.test(v)) throw new Refused(`-boot ${name}=${v}: accepted are the letters a, c, d, n`);
    s.machineProperties.set(`boot.${name}`, v);
  };
  properties('-boot', text, 'order', {
    order: letters('order'),
    once: letters('once'),
    menu: (v) => {
      s.bootMenu = { ...s.bootMenu, on: onOff('-boot menu=', v) };
    },
    'splash-time': (v) => {
      s.bootMenu = { on: false, ...s.bootMenu, timeout: integer('-boot splash-time=', v, 0, 65535) };
    },
    strict: (v) => void s.machineProperties.set('boot.strict', onOff('-boot strict=', v) ? 'on' : 'off'),
    'reboot-timeout': (v) => {
      s.rebootTimeout = integer('-boot reboot-timeout=', v, -1, 65535);
    },
  });
}

function global(s: Settings, text: string): void {
  // Names of types may have dots: the last one is before the property.
  const found = text.startsWith('driver=') ? undefined : /^([^=]+)\.([^.=]+)=(.*)$/s.exec(text);
  const map = found ? undefined : new Map(text.split(',').map((part) => part.split('=', 2) as [string, string]));
  const driver = found?.[1] ?? map?.get('driver');
  const property = found?.[2] ?? map?.get('property');
  const value = found?.[3] ?? map?.get('value');
  if (driver === undefined || property === undefined || value === undefined)
    throw new Refused(`-global ${text}: accepted is DRIVER.PROPERTY=VALUE`);
  s.globals.push({ driver, property, value });
}

export const machineOptions: readonly SystemOption[] = [
  {
    names: ['-M', '-machine'],
    value: '[type=]NAME[,accel=…][,hpet=on|off][,acpi=on|off]',
    help: 'machine; -machine help lists them',
    group: 'machine',
    parameters: machineProperties.map(({ name, type }) => ({ name, type: type === 'bool' ? 'boolean' : 'string' })),
    apply: machine,
  },
  {
    names: ['-accel'],
    value: 'dbt|tcg[,thread=multi]',
    help: 'what runs the vCPUs',
    group: 'accel',
    parameters: parameters({ string: 'accel thread' }),
    apply: accel,
  },
  {
    names: ['-cpu'],
    value: 'MODEL[,+FEATURE][,-FEATURE]',
    help: 'CPU (default qemu64); -kvm hides the paravirtual interface; -cpu help lists models and features',
    apply: cpu,
  },
  {
    names: ['-smp'],
    value: '[cpus=]N[,maxcpus=N][,sockets=N][,cores=N][,threads=N]',
    help: 'number of vCPUs, 1 to 64 (default 1), and their arrangement',
    group: 'smp-opts',
    parameters: parameters({ number: 'cpus sockets dies cores threads maxcpus' }),
    apply: does(smp),
  },
  {
    names: ['-numa'],
    value: 'node[,nodeid=N][,cpus=FIRST[-LAST]][,memdev=ID]',
    help: 'a NUMA node; also dist,src=N,dst=N,val=N and cpu,node-id=N[,socket-id=N][,core-id=N][,thread-id=N]',
    group: 'numa',
    apply: does((s, text) => void s.numa.push(text)),
  },
  {
    names: ['-m'],
    value: '[size=]SIZE[,slots=N,maxmem=SIZE]',
    help: 'memory in MiB, or with K, M, G (default 128); up to N modules (pc-dimm) may come to it',
    group: 'memory',
    parameters: parameters({ size: 'size maxmem', number: 'slots' }),
    apply: does((s, text) =>
      properties('-m', text, 'size', {
        size: (v) => {
          s.memory = parseMemory(v);
          s.memoryGiven = true;
        },
        maxmem: (v) => {
          s.maxMemory = parseMemory(v);
        },
        slots: (v) => {
          s.memorySlots = integer('-m slots=', v, 0, Number.MAX_SAFE_INTEGER);
        },
      }),
    ),
  },
  {
    names: ['-kernel'],
    value: 'FILE',
    help: 'kernel to boot: Linux bzImage or vmlinux, PVH ELF, multiboot 1',
    apply: does((s, v) => {
      s.kernel = v;
    }),
  },
  {
    names: ['-initrd'],
    value: 'FILE',
    help: "its initramfs, or a multiboot kernel's module",
    apply: does((s, v) => {
      s.initrd = v;
    }),
  },
  {
    names: ['-append'],
    value: 'TEXT',
    help: 'its command line',
    apply: does((s, v) => {
      s.append = v;
    }),
  },
  {
    names: ['-boot'],
    value: '[order=]DRIVES[,once=DRIVES][,menu=on|off][,splash-time=MS][,reboot-timeout=MS][,strict=on|off]',
    help: 'where the firmware looks for a system; once= until the first reset',
    group: 'boot-opts',
    parameters: parameters({ string: 'order once splash', boolean: 'menu strict', number: 'splash-time reboot-timeout' }),
    apply: does(boot),
  },
  {
    names: ['-rtc'],
    value: 'base=utc|localtime|DATE',
    help: 'time of the clock (default utc)',
    group: 'rtc',
    parameters: parameters({ string: 'base clock driftfix' }),
    apply: does((s, text) =>
      properties('-rtc', text, '', {
        base: (v) => {
          s.rtcOffset = rtcOffset(v);
        },
        clock: (v) => oneOf('-rtc clock=', v, ['host']),
        driftfix: (v) => {
          oneOf('-rtc driftfix=', v, ['none', 'slew']);
          s.timers = { ...s.timers, rtcSlew: v === 'slew' };
        },
      }),
    ),
  },
  {
    names: ['-uuid'],
    value: 'UUID',
    help: "the machine's UUID",
    apply: does((s, v) => {
      if (!/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(v))
        throw new Refused(`-uuid ${v}: accepted is the form 550e8400-e29b-41d4-a716-446655440000`);
      s.uuid = v;
    }),
  },
  {
    names: ['-overcommit'],
    value: '[mem-lock=off][,cpu-pm=off]',
    help: "how the host's memory and CPUs are used",
    group: 'overcommit',
    parameters: parameters({ boolean: 'mem-lock cpu-pm' }),
    apply: does((_, text) =>
      properties('-overcommit', text, '', {
        'mem-lock': (v) => {
          if (parseBool(v) !== false) throw new Refused(`-overcommit mem-lock=${v}: not supported; accepted: off`);
        },
        'cpu-pm': (v) => {
          if (parseBool(v) !== false) throw new Refused(`-overcommit cpu-pm=${v}: not supported; accepted: off`);
        },
      }),
    ),
  },
  {
    names: ['-global'],
    value: 'DRIVER.PROPERTY=VALUE',
    help: 'a property of all devices of a type that do not set it',
    apply: does(global),
  },
  {
    names: ['-no-hpet'],
    help: 'no HPET, as -machine hpet=off',
    apply: does((s) => {
      s.hpet = false;
    }),
  },
  {
    names: ['-no-acpi'],
    help: 'no ACPI tables, as -machine acpi=off',
    apply: does((s) => {
      s.acpi = false;
    }),
  },
  { names: ['-enable-kvm'], help: 'as -accel kvm', apply: does((s) => void s.accel.push('kvm')) },
];
