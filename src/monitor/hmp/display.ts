// Commands of the monitor for people about displays and input. QEMU 7.2 "System Emulation", section "QEMU Monitor".

import type { HmpArguments, HmpCommand } from './command.ts';
import { HmpError, need } from './command.ts';

const number = (args: HmpArguments, n: number, name: string): number => {
  const value = Number(need(args, n, name));
  if (!Number.isInteger(value)) throw new HmpError(`invalid parameter ${name}`);
  return value;
};

export const displayCommands: readonly HmpCommand[] = [
  {
    names: ['screendump'],
    args: 'filename [-f format] [device [head]]',
    help: 'save screen from head (of display device) into PPM or PNG image',
    async run(e, { words }) {
      const rest = [...words];
      const flag = rest.indexOf('-f');
      const format = flag < 0 ? 'ppm' : rest.splice(flag, 2)[1];
      if (format !== 'ppm' && format !== 'png') throw new HmpError(`invalid format: ${format}`);
      const [path, device, head] = rest;
      if (path === undefined) throw new HmpError('missing parameter filename');
      if (head !== undefined && !/^\d+$/.test(head)) throw new HmpError('invalid parameter head');
      await e.display.screendump(path, format, device, head === undefined ? undefined : Number(head));
    },
  },
  {
    names: ['sendkey'],
    args: 'keys [hold_ms]',
    help: "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
    run: (e, args) =>
      e.display.sendText(need(args, 0, 'keys'), args.words[1] === undefined ? undefined : number(args, 1, 'hold')),
  },
  {
    names: ['mouse_move'],
    args: 'dx dy [dz]',
    help: 'send mouse move events',
    run: (e, args) =>
      e.display.move(number(args, 0, 'dx'), number(args, 1, 'dy'), args.words[2] === undefined ? 0 : number(args, 2, 'dz')),
  },
  {
    names: ['mouse_button'],
    args: 'state',
    help: 'change mouse button state (1=L, 2=M, 4=R)',
    run: (e, args) => e.display.press(number(args, 0, 'state')),
  },
  {
    names: ['set_password'],
    args: 'protocol password [-d display] [action-if-connected]',
    help: 'set vnc password',
    run(e, { words }) {
      const rest = [...words];
      const flag = rest.indexOf('-d');
      const display = flag < 0 ? undefined : rest.splice(flag, 2)[1];
      const [protocol, password, connected = 'keep'] = rest;
      if (protocol !== 'vnc' || password === undefined) throw new HmpError(`invalid parameter protocol: ${protocol}`);
      if (connected !== 'keep' && connected !== 'fail' && connected !== 'disconnect')
        throw new HmpError(`invalid parameter action: ${connected}`);
      e.display.setPassword(password, connected, display);
    },
  },
  {
    names: ['expire_password'],
    args: 'protocol time [-d display]',
    help: 'set vnc password expire-time',
    run(e, { words }) {
      const rest = [...words];
      const flag = rest.indexOf('-d');
      const display = flag < 0 ? undefined : rest.splice(flag, 2)[1];
      const [protocol, time] = rest;
      if (protocol !== 'vnc' || time === undefined) throw new HmpError(`invalid parameter protocol: ${protocol}`);
      e.display.expirePassword(time, display);
    },
  },
];

export const displayInfos: readonly HmpCommand[] = [
  {
    names: ['mice'],
    help: 'show which guest mouse is receiving events',
    run: ({ backends }) =>
      backends.input
        .pointers()
        .map((p, n) => `${p.current ? '*' : ' '} Mouse #${n}: ${p.name}${p.absolute ? ' (absolute)' : ''}`)
        .join('\n') || 'No mouse devices connected',
  },
  {
    names: ['vnc'],
    help: 'show the vnc server status',
    run({ display }) {
      const lines = [...display.servers.values()].flatMap((s) => [
        `${s.vnc.id}:`,
        ...s.addresses.map((a) => `  Server: ${a.host}:${a.service} (${a.family}${a.websocket ? ' (Websocket)' : ''})`),
        `    Auth: ${s.vnc.auth} (Sub: ${s.vnc.vencrypt ?? 'none'})`,
        ...s.vnc
          .clients()
          .map(
            (c) =>
              `  Client: ${c.host}:${c.service} (${c.family})\n    x509_dname: ${c.x509_dname ?? 'none'}\n    sasl_username: ${c.sasl_username ?? 'none'}`,
          ),
      ]);
      return lines.length === 0 ? 'None' : lines.join('\n');
    },
  },
  {
    names: ['usb'],
    help: 'show guest USB devices',
    run(e) {
      const buses = e.running.devices.list().flatMap((d) => d.buses);
      const devices = buses
        .flatMap((b) => (b.kind === 'usb-bus' ? b.ports : []))
        .flatMap((p) => (p.device ? [[p, p.device] as const] : []));
      if (devices.length === 0) return 'USB support not enabled';
      return devices
        .map(
          ([port, device]) =>
            `  Device 0.${device.s.address}, Port ${port.path}, Speed ${{ low: '1.5', full: '12', high: '480' }[device.speed]} Mb/s, Product ${device.fn.description.strings[1]}${device.name.includes('#') ? '' : `, ID: ${device.name}`}`,
        )
        .join('\n');
    },
  },
];
