// A client of ours for tests of the daemon, for hosts without virsh; and the guests that the tests run.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connectUri } from '../../src/daemon/peer.ts';
import { nodeSockets } from '../../src/host/node/daemon-sockets.ts';
import { openImage } from '../../src/host/node/fetch-image.ts';
import type { RpcClient } from '../../src/rpc/client.ts';
import { remote } from '../../src/rpc/libvirt/programs.ts';
import type { Domain } from '../../src/rpc/libvirt/types.ts';
import { realEmulator } from './daemon-process.ts';

export const state = { running: 1, paused: 3, shutoff: 5 } as const;

export class Client {
  readonly rpc: RpcClient;
  private constructor(rpc: RpcClient) {
    this.rpc = rpc;
  }
  static async connect(uri: string): Promise<Client> {
    return new Client(await connectUri(nodeSockets, uri, '', undefined));
  }
  async define(xml: string): Promise<Domain> {
    return (await this.rpc.call(remote, 'domainDefineXmlFlags', { xml, flags: 0 })).dom;
  }
  start(dom: Domain, flags = 0): Promise<unknown> {
    return this.rpc.call(remote, 'domainCreateWithFlags', { dom, flags });
  }
  async find(name: string): Promise<Domain> {
    return (await this.rpc.call(remote, 'domainLookupByName', { name })).dom;
  }
  async state(name: string): Promise<number> {
    return (await this.rpc.call(remote, 'domainGetState', { dom: await this.find(name), flags: 0 })).state;
  }
  /** Names of all domains, in order. */
  async names(flags = 0): Promise<string[]> {
    const { domains } = await this.rpc.call(remote, 'connectListAllDomains', { needResults: true, flags });
    return domains.map((one) => one.name).sort();
  }
  close(): void {
    this.rpc.close();
  }
}

/** Waits until `test` says yes. @throws Error (rejects) with `what` when it does not within `ms` */
export async function until(what: string | (() => string), test: () => Promise<boolean> | boolean, ms = 60_000): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; ) {
    if (await test()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${typeof what === 'string' ? what : what()}: not within ${ms} ms`);
}

/** A guest with nothing to boot: firmware that finds no disk. */
export const idleGuest = (name: string, uuid: string, devices = '', emulator = realEmulator): string =>
  `<domain type='qemu'><name>${name}</name><uuid>${uuid}</uuid><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>` +
  `<devices><emulator>${emulator}</emulator>${devices}<serial type='pty'/></devices></domain>`;

export const uuidOf = (number: number): string => `55555555-0000-4000-8000-${String(number).padStart(12, '0')}`;

export interface LinuxFiles {
  readonly kernel: string;
  readonly initrd: string;
  readonly append: string;
}

/** Why there is no Linux to boot; or its files. */
export async function linuxFiles(): Promise<LinuxFiles | string> {
  try {
    const { kernel, initrd, append } = await openImage('debian-cloud');
    return { kernel, initrd, append };
  } catch (error) {
    return `no image debian-cloud: ${error instanceof Error ? error.message : String(error)}`;
  }
}

export const linuxGuest = (name: string, uuid: string, files: LinuxFiles, devices = '', emulator = realEmulator): string =>
  `<domain type='qemu'><name>${name}</name><uuid>${uuid}</uuid><memory unit='MiB'>256</memory><vcpu>1</vcpu>` +
  `<os><type arch='x86_64' machine='pc'>hvm</type><kernel>${files.kernel}</kernel><initrd>${files.initrd}</initrd><cmdline>${files.append}</cmdline></os>` +
  `<features><acpi/><apic/></features><devices><emulator>${emulator}</emulator>${devices}<serial type='pty'/>` +
  `<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>`;

export const makeDisk = (path: string, size: string): void => {
  if (!existsSync(path)) execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, size]);
};

/** A guest's console through the daemon. */
export class GuestConsole {
  text = '';
  readonly #write: (bytes: Uint8Array) => Promise<void>;
  readonly close: () => Promise<void>;

  private constructor(write: (bytes: Uint8Array) => Promise<void>, close: () => Promise<void>) {
    this.#write = write;
    this.close = close;
  }
  static async open(client: Client, dom: Domain): Promise<GuestConsole> {
    const { stream } = await client.rpc.open(remote, 'domainOpenConsole', { dom, device: undefined, flags: 1 });
    const own = new GuestConsole(
      (bytes) => stream.write(bytes),
      () => stream.abort(),
    );
    void (async () => {
      for await (const item of stream) if (item instanceof Uint8Array) own.text += Buffer.from(item).toString('latin1');
    })().catch(() => {});
    return own;
  }
  send(text: string): Promise<void> {
    return this.#write(Buffer.from(text));
  }
  async expect(pattern: RegExp, ms = 120_000): Promise<RegExpExecArray> {
    let found: RegExpExecArray | null = null;
    await until(
      () => `console shows ${pattern}; it shows: ${JSON.stringify(this.text.slice(-600))}`,
      () => (found = pattern.exec(this.text)) !== null,
      ms,
    );
    return found!;
  }
}
