// QMP commands about displays and input. QEMU 7.2, qapi/ui.json.

import type { Button, InputEvent } from '../../display/input.ts';
import { keyNames } from '../../display/keys.ts';
import type { VncAddress, VncServer } from '../../display/vnc.ts';
import { array, bool, enumeration, int, object, optional, str, union } from '../../rpc/qmp/schema.ts';
import { buttonNames, type KeyValue, keyOf } from '../display.ts';
import { action, type QmpTable, query, unionAction } from './row.ts';

const family = enumeration('NetworkAddressFamily', ['ipv4', 'ipv6', 'unix', 'vsock', 'unknown']);
const keyValue = union('KeyValue', {}, 'type', {
  number: { data: int },
  qcode: { data: enumeration('QKeyCode', keyNames) },
});
const axis = enumeration('InputAxis', ['x', 'y']);
const move = object('InputMoveEvent', { axis, value: int });
const inputEvent = union('InputEvent', {}, 'type', {
  key: { data: object('InputKeyEvent', { key: keyValue, down: bool }) },
  btn: { data: object('InputBtnEvent', { button: enumeration('InputButton', buttonNames), down: bool }) },
  rel: { data: move },
  abs: { data: move },
});
const client = object('VncClientInfo', {
  host: str,
  service: str,
  family,
  websocket: bool,
  x509_dname: optional(str),
  sasl_username: optional(str),
});
const auth = enumeration('VncPrimaryAuth', ['none', 'vnc', 'ra2', 'ra2ne', 'tight', 'ultra', 'tls', 'vencrypt', 'sasl']);
const vencrypt = enumeration('VncVencryptSubAuth', [
  'plain', 'tls-none', 'x509-none', 'tls-vnc', 'x509-vnc', 'tls-plain', 'x509-plain', 'tls-sasl', 'x509-sasl',
]); // biome-ignore format: one list
const server = object('VncServerInfo2', {
  host: str,
  service: str,
  family,
  websocket: bool,
  auth,
  vencrypt: optional(vencrypt),
});
const information = object('VncInfo2', {
  id: str,
  server: array(server),
  clients: array(client),
  auth,
  vencrypt: optional(vencrypt),
  display: optional(str),
});

interface GivenEvent {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}
function eventOf({ type, data }: GivenEvent): readonly InputEvent[] {
  switch (type) {
    case 'key': {
      const key = keyOf(data['key'] as KeyValue);
      return key ? [{ kind: 'key', key, down: data['down'] as boolean }] : [];
    }
    case 'btn':
      return [{ kind: 'button', button: data['button'] as Button, down: data['down'] as boolean }];
    default:
      return [
        { kind: type === 'rel' ? 'relative' : 'absolute', axis: data['axis'] as 'x' | 'y', value: data['value'] as number },
      ];
  }
}

const plain = ({ host, service, family: f, websocket }: VncAddress) => ({ host, service, family: f, websocket });
const asked = ({ vnc }: VncServer) => ({ auth: vnc.auth, ...(vnc.vencrypt ? { vencrypt: vnc.vencrypt } : {}) });
const info = (s: VncServer) => ({
  id: s.vnc.id,
  // Under WebSocket's TLS the rest is asked as without.
  server: s.addresses.map((a) => ({ ...plain(a), ...(a.websocket ? { auth: s.vnc.inner } : asked(s)) })),
  clients: s.vnc.clients(),
  ...asked(s),
});

export const displayCommands: QmpTable = {
  screendump: action(
    { filename: str, device: optional(str), head: optional(int), format: optional(enumeration('ImageFormat', ['ppm', 'png'])) },
    (e, { filename, device, head, format }) => e.display.screendump(filename, format ?? 'ppm', device, head),
  ),
  'send-key': action({ keys: array(keyValue), 'hold-time': optional(int) }, (e, a) =>
    e.display.sendKey(a.keys as readonly KeyValue[], a['hold-time']),
  ),
  'input-send-event': action(
    { device: optional(str), head: optional(int), events: array(inputEvent) },
    (e, { device, head, events }) => e.display.send((events as unknown as readonly GivenEvent[]).flatMap(eventOf), device, head),
  ),
  'query-mice': query({}, array(object('MouseInfo', { name: str, index: int, current: bool, absolute: bool })), ({ backends }) =>
    backends.input.pointers().map(({ name, absolute, current }, index) => ({ name, index, current, absolute })),
  ),
  'query-vnc': query(
    {},
    object('VncInfo', {
      enabled: bool,
      host: optional(str),
      family: optional(family),
      service: optional(str),
      auth: optional(str),
      clients: optional(array(client)),
    }),
    ({ display }) => {
      const first = [...display.servers.values()][0];
      const at = first?.addresses.find((a) => !a.websocket);
      if (!first || !at) return { enabled: false };
      const { host, family: f, service } = at;
      return { enabled: true, host, family: f, service, auth: first.vnc.auth, clients: first.vnc.clients() };
    },
  ),
  'query-vnc-servers': query({}, array(information), ({ display }) => [...display.servers.values()].map(info)),
  'change-vnc-password': action({ password: str }, (e, { password }) => e.display.setPassword(password)),
  set_password: unionAction(
    union(
      'SetPasswordOptions',
      { password: str, connected: optional(enumeration('SetPasswordAction', ['keep', 'fail', 'disconnect'])) },
      'protocol',
      { vnc: { display: optional(str) } },
    ),
    (e, a) => e.display.setPassword(a.password, a.connected, a.display),
  ),
  expire_password: unionAction(
    union('ExpirePasswordOptions', { time: str }, 'protocol', { vnc: { display: optional(str) } }),
    (e, a) => e.display.expirePassword(a.time, a.display),
  ),
};
