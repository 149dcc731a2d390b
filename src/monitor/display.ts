// The emulator's displays as monitors see them: screenshots, keys, pointers, VNC servers. QEMU 7.2, qapi/ui.json.

import { png, ppm, type Zlib } from '../display/image.ts';
import { buttons, type InputEvent, sendKeys } from '../display/input.ts';
import { type Key, keyNamed, keyNumbered } from '../display/keys.ts';
import { Screen } from '../display/screen.ts';
import type { VncListen, VncServer, VncServerOptions } from '../display/vnc.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import type { Emulator } from './emulator.ts';
import { tlsCredentials } from './tls.ts';

/** What displays need of the host. */
export interface DisplayHost {
  readonly zlib: Zlib;
  readonly startVnc: (o: VncServerOptions) => Promise<VncServer>;
  readonly writeFile: (path: string, bytes: Uint8Array) => Promise<void>;
}

/** A VNC server as the command line asks for it. */
export interface VncSetting {
  readonly id: string;
  /** Absent: it does not listen (`none`). */
  readonly listen: VncListen | undefined;
  readonly password: boolean;
  readonly sasl: boolean;
  /** The password itself, of a secret. */
  readonly secret: string | undefined;
  readonly share: VncServerOptions['share'];
  readonly lossy?: boolean;
  /** Credentials by their id. */
  readonly tls?: string | undefined;
  /** Objects that say who may come in, of those whom certificates or SASL know. */
  readonly tlsAuthz?: string | undefined;
  readonly saslAuthz?: string | undefined;
  /** The display device that it shows, and which of its displays; the first one without. */
  readonly display: string | undefined;
  readonly head?: number;
}

/** A key as QMP has it: by QKeyCode or by number. */
export type KeyValue = { readonly type: 'qcode'; readonly data: string } | { readonly type: 'number'; readonly data: number };

export class DisplayControl {
  readonly #e: Emulator;
  readonly servers = new Map<string, VncServer>();

  constructor(e: Emulator) {
    this.#e = e;
  }

  // ── Pictures ──

  /** The screen of a device; the first one without. @throws QmpError */
  screen(device?: string, head?: number): Screen {
    const { displays } = this.#e.backends;
    if (device === undefined && head !== undefined) throw new QmpError("'head' must be specified together with 'device'");
    const screen = displays.find(device, head);
    if (screen) return screen;
    if (device === undefined) throw new QmpError('There is no console to take a screendump from');
    if (!this.#e.machine?.devices.find(device)) throw new QmpError(`Device '${device}' not found`, 'DeviceNotFound');
    throw new QmpError(`Device ${device} (head ${head ?? 0}) is not bound to a QemuConsole`);
  }

  async screendump(path: string, format: 'ppm' | 'png', device?: string, head?: number): Promise<void> {
    const screen = this.screen(device, head);
    screen.refresh();
    const { width, height } = screen.surface;
    const picture = { width, height, pixels: screen.surface.pixels.slice() };
    const { zlib, writeFile } = this.#e.host.display;
    try {
      await writeFile(path, format === 'png' ? await png(picture, zlib) : ppm(picture));
    } catch (error) {
      throw new QmpError(`failed to open file '${path}': ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  // ── Input ──

  async sendKey(keys: readonly KeyValue[], hold = 100): Promise<void> {
    const { timers } = this.#e.host;
    const list = keys.map(keyOf).filter((k) => k !== undefined);
    await sendKeys(this.#e.backends.input, list, hold, (ms) => new Promise((resolve) => void timers.after(ms, () => resolve())));
  }

  /** `device` and `head` name the display that it comes from. @throws QmpError */
  send(events: readonly InputEvent[], device?: string, head?: number): void {
    if (device !== undefined) this.screen(device, head);
    this.#e.backends.input.send(events, device === undefined ? undefined : { display: device, head: head ?? 0 });
  }

  /** HMP's `sendkey`: names or numbers joined by hyphens. @throws QmpError */
  async sendText(text: string, hold?: number): Promise<void> {
    const keys = text.split('-').map((name): KeyValue => {
      if (/^0x[\da-f]+$/i.test(name)) return { type: 'number', data: Number(name) };
      // People write `<` as `less` means it.
      const qcode = name === '<' ? 'less' : name;
      if (!keyNamed(qcode)) throw new QmpError(`invalid parameter: ${name}`);
      return { type: 'qcode', data: qcode };
    });
    await this.sendKey(keys, hold);
  }

  /** HMP's `mouse_move` and `mouse_button`. */
  move(dx: number, dy: number, dz: number): void {
    const events: InputEvent[] = [
      { kind: 'relative', axis: 'x', value: dx },
      { kind: 'relative', axis: 'y', value: dy },
    ];
    const button = dz < 0 ? 'wheel-up' : 'wheel-down';
    if (dz !== 0) events.push({ kind: 'button', button, down: true }, { kind: 'button', button, down: false });
    this.send(events);
  }
  #held = 0;
  press(mask: number): void {
    const changed = this.#held ^ mask;
    this.#held = mask;
    const bits = [
      ['left', 1],
      ['middle', 2],
      ['right', 4],
    ] as const;
    this.send(
      bits.filter(([, bit]) => changed & bit).map(([button, bit]) => ({ kind: 'button', button, down: (mask & bit) !== 0 })),
    );
  }

  // ── VNC ──

  /** Starts a server. Rejects with one line where it cannot. */
  async startVnc(o: VncSetting): Promise<void> {
    const e = this.#e;
    if (this.servers.has(o.id)) throw new Error(`Cannot start VNC server '${o.id}': the name is taken`);
    const { displays, input } = e.backends;
    const screen = o.display === undefined ? (displays.find() ?? this.#nothing()) : this.screen(o.display, o.head);
    const { name } = e.config;
    const server = await e.host.display.startVnc({
      id: o.id,
      name: name === undefined ? 'Nonroot' : `Nonroot (${name})`,
      screen,
      input: o.display === undefined ? input : input.at({ display: o.display, head: o.head ?? 0 }),
      password: o.password,
      sasl: o.sasl,
      share: o.share,
      lossy: o.lossy,
      tls: o.tls === undefined ? undefined : tlsCredentials(e.objects, o.tls, 'server'),
      authorized: (by, name) => {
        const id = by === 'sasl' ? o.saslAuthz : o.tlsAuthz;
        return id === undefined || (name !== undefined && e.authorization.isAuthorized(id, name));
      },
      listen: o.listen,
      event: (event, data) => e.emit(event, data),
      report: (message) => e.host.log(`vnc ${o.id}: ${message}`),
    });
    if (o.secret !== undefined) server.vnc.setPassword(o.secret);
    this.servers.set(o.id, server);
  }

  /** What is shown where the machine has no display. */
  #nothing(): Screen {
    const { timers } = this.#e.host;
    return new Screen(
      { name: 'none', draw: () => {} },
      {
        now: () => performance.now(),
        after: (ms, f) => {
          return timers.after(ms, f);
        },
      },
    );
  }

  /** The server of that id; the first one without. @throws QmpError */
  server(id?: string): VncServer {
    const found = id === undefined ? [...this.servers.values()][0] : this.servers.get(id);
    if (!found) throw new QmpError('Could not set password');
    return found;
  }

  setPassword(password: string, connected?: 'keep' | 'fail' | 'disconnect', display?: string): void {
    const { vnc } = this.server(display);
    try {
      vnc.setPassword(password, connected);
    } catch {
      throw new QmpError('Could not set password');
    }
  }

  /** `now`, `never`, `+SECONDS` or seconds since 1970. @throws QmpError */
  expirePassword(time: string, display?: string): void {
    const now = this.#e.host.now().seconds;
    const number = /^\+?\d+$/.test(time) ? Number(time.replace('+', '')) : Number.NaN;
    const when = time === 'now' ? now : time === 'never' ? undefined : time.startsWith('+') ? now + number : number;
    if (Number.isNaN(when)) throw new QmpError(`Parameter 'time' expects a time: ${time}`);
    this.server(display).vnc.expirePassword(when);
  }

  closeAll(): void {
    for (const server of this.servers.values()) server.close();
    this.servers.clear();
  }
}

/** The key; nothing for numbers that no keyboard has. @throws QmpError for names that there are not */
export function keyOf(k: KeyValue): Key | undefined {
  if (k.type === 'number') return keyNumbered(k.data & 0xff);
  const key = keyNamed(k.data);
  if (!key && k.data !== 'unmapped') throw new QmpError(`Invalid parameter '${k.data}'`);
  return key;
}

/** QMP's buttons by ours. */
export const buttonNames = buttons;
