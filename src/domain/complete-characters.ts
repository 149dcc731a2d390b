// Serial ports and consoles: the first console and the first serial port are one device, every port has a number (libvirt 9.0).
import type { Domain } from './domain.ts';
import { boardOf } from './emulator.ts';
import { unsupported } from './errors.ts';
import type { ConsoleDevice, Serial } from './model/character.ts';

/** What the two descriptions of one device share. */
function asConsole(serial: Serial): ConsoleDevice {
  const { type, sources, protocol, log } = serial;
  return {
    type,
    sources,
    ...(protocol && { protocol }),
    ...(log && { log }),
    target: { type: 'serial', ...(serial.target?.port !== undefined && { port: serial.target.port }) },
  };
}

function asSerial(one: ConsoleDevice): Serial {
  const { type, sources, protocol, log, target } = one;
  return {
    type,
    sources,
    ...(protocol && { protocol }),
    ...(log && { log }),
    target: { ...(target?.port !== undefined && { port: target.port }) },
  };
}

const isSerialConsole = (one: ConsoleDevice): boolean =>
  one.target === undefined || one.target.type === 'serial' || one.target.type === 'isa-serial';

/** Ports count from 0; a given number stays. */
function numberPorts(list: { target?: { port?: number } }[]): void {
  const used = list.flatMap((one) => one.target?.port ?? []);
  let next = Math.max(-1, ...used) + 1;
  if (used.length === 0) next = 0;
  for (const one of list) {
    one.target ??= {};
    one.target.port ??= next++;
  }
}

/**
 * Pairs the first console with the first serial port, adding the one that is missing, and numbers the ports.
 * @throws DomainXmlError when another console than the first is a serial port.
 */
export function completeCharacters(domain: Domain): void {
  const { devices } = domain;
  const board = boardOf(domain.os.type?.machine ?? '');
  const [first, ...others] = devices.consoles;
  if (others.some(isSerialConsole)) throw unsupported('Only the first console can be a serial port');
  if (first && isSerialConsole(first) && devices.serials.length === 0) devices.serials.push(asSerial(first));
  for (const one of devices.serials) {
    one.target ??= {};
    one.target.type ??= board === 'virt' ? 'system-serial' : 'isa-serial';
    if (one.target.type === 'system-serial') {
      one.target.model ??= { name: domain.os.type?.arch?.startsWith('riscv') ? '16550a' : 'pl011' };
    } else if (one.target.type === 'isa-serial') one.target.model ??= { name: 'isa-serial' };
    else if (one.target.type === 'isa-debug') one.target.model ??= { name: 'isa-debugcon' };
    else one.target.model ??= { name: one.target.type };
  }
  numberPorts(devices.serials);
  numberPorts(devices.parallels);
  devices.consoles.forEach((one, index) => {
    one.target ??= { type: 'serial' };
    one.target.port ??= index;
  });
  const [serial] = devices.serials;
  if (serial?.target?.type === 'isa-serial' || serial?.target?.type === 'system-serial') {
    const paired = asConsole(serial);
    if (!first) devices.consoles.push(paired);
    else if (isSerialConsole(first)) {
      devices.consoles[0] = { ...first, ...paired, ...(first.tty !== undefined && { tty: first.tty }) };
    } else devices.consoles.unshift(paired);
  }
  for (const one of devices.channels) {
    // The path of an agent's socket is chosen at start.
    if (one.type === 'unix' && one.sources[0]?.path === undefined) one.sources = [];
  }
}
