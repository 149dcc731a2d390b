// The debugger's end of a machine: GDB's remote serial protocol over a character device. GDB manual, appendix "GDB Remote Serial
// Protocol"; what QEMU 7.2 answers where the manual leaves a choice.

import type { Chardev, CharPort } from '../../chardev/chardev.ts';
import type { RunningMachine } from '../../machine/running.ts';
import type { Emulator } from '../emulator.ts';
import { VcpuMemory } from '../guest-memory.ts';
import { runHmp } from '../hmp/commands.ts';
import { Breakpoints } from './breakpoints.ts';
import { fromHex, PACKET_SIZE, PacketReader, packet, toHex } from './packet.ts';
import { gdbRegisters, targetXml } from './registers.ts';

const SIGINT = 2;
const SIGTRAP = 5;

/** Serves gdb on a character device. @throws Error when it is in use */
export function serveGdb(e: Emulator, chardev: Chardev): CharPort {
  let stub: GdbStub | undefined;
  const port: CharPort = chardev.take({
    receive: (bytes) => stub?.input(bytes),
    connected(is) {
      stub?.close();
      stub = is ? new GdbStub(e, e.running, (bytes) => void port.write(bytes)) : undefined;
    },
  });
  return port;
}

export class GdbStub {
  readonly #e: Emulator;
  readonly #machine: RunningMachine;
  readonly #send: (bytes: Uint8Array) => void;
  readonly #reader = new PacketReader();
  readonly #points: Breakpoints;
  readonly #unsubscribe: readonly (() => void)[];
  #work: Promise<void>;
  #acks = true;
  #last = new Uint8Array(0);
  /** vCPUs that `g` and `c` packets mean. */
  #general = 0;
  #continue = 0;
  #closed = false;
  /** The guest was set going by gdb, which waits for its stop. */
  #running = false;
  #physical = false;

  constructor(e: Emulator, machine: RunningMachine, send: (bytes: Uint8Array) => void) {
    this.#e = e;
    this.#machine = machine;
    this.#send = send;
    this.#points = new Breakpoints(machine);
    // A debugger finds the guest held.
    this.#work = machine.status === 'running' ? machine.pause() : machine.prepare();
    this.#unsubscribe = [
      machine.onDebug((cpu) => this.#queue(() => this.#debug(cpu))),
      machine.subscribe((name) => {
        if (name === 'STOP') this.#queue(() => this.#held());
        else if (name === 'RESET') this.#queue(() => machine.hold(() => this.#points.afterReset()));
        else if (name === 'SHUTDOWN' && this.#running) this.#reply('W00');
      }),
    ];
  }
  #queue(action: () => void | Promise<void>): Promise<void> {
    return (this.#work = this.#work.then(action).catch((error: unknown) => {
      this.#e.host.log(`gdb: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }));
  }
  /** The connection is over: the guest goes on as if there had been no debugger, unless it was held. */
  close(): void {
    this.#closed = true;
    for (const end of this.#unsubscribe) end();
    this.#queue(() => this.#machine.hold(() => this.#points.removeAll()));
  }
  input(bytes: Uint8Array): Promise<void> {
    for (const item of this.#reader.push(bytes)) {
      if ('packet' in item) {
        if (this.#acks) this.#send(Uint8Array.of(0x2b));
        this.#queue(async () => {
          // Whoever is connected now has not asked.
          if (this.#closed) return;
          const answer = await this.#carryOut(item.packet).catch(() => 'E01');
          if (answer !== undefined) this.#reply(answer);
        });
      } else if (item.kind === 'interrupt') this.#queue(() => this.#machine.pause());
      else if (item.kind === 'bad' && this.#acks) this.#send(Uint8Array.of(0x2d));
      else if (item.kind === 'nak' && this.#acks) this.#send(this.#last);
    }
    return this.#work;
  }
  #reply(data: string | Uint8Array): void {
    if (this.#closed) return;
    this.#last = packet(data) as Uint8Array<ArrayBuffer>;
    this.#send(this.#last);
  }

  // -- stops

  #stopReply(signal: number, cpu: number, why = ''): string {
    return `T${signal.toString(16).padStart(2, '0')}thread:${(cpu + 1).toString(16)};${why}`;
  }
  /** A vCPU has met what it should stop at. */
  #debug(cpu: number): void {
    this.#general = this.#continue = cpu;
    this.#points.stopped();
    const why = this.#points.reason(cpu);
    if (!this.#running) return;
    this.#running = false;
    this.#reply(this.#stopReply(SIGTRAP, cpu, why));
  }
  /** Somebody has held the guest: gdb's interrupt, or a monitor. */
  async #held(): Promise<void> {
    // A stop by a vCPU tells of itself right afterwards.
    await new Promise<void>((resolve) => void this.#e.host.timers.after(0, resolve));
    if (!this.#running || this.#machine.status === 'running') return;
    void this.#queue(() => {
      if (!this.#running) return;
      this.#running = false;
      this.#points.stopped();
      this.#reply(this.#stopReply(SIGINT, this.#general));
    });
  }
  #go(step: number | undefined): undefined {
    if (step !== undefined) this.#points.step(step);
    this.#running = true;
    this.#e.cont();
    return undefined;
  }

  // -- packets

  async #carryOut(bytes: Uint8Array): Promise<string | Uint8Array | undefined> {
    const text = new TextDecoder('latin1').decode(bytes);
    const rest = text.slice(1);
    const machine = this.#machine;
    const state = (): DataView => machine.vcpuState(this.#general);
    switch (text[0]) {
      case '?':
        return this.#stopReply(SIGTRAP, this.#general);
      case 'g':
        return gdbRegisters.map((r) => toHex(r.read(state()))).join('');
      case 'G': {
        const all = fromHex(rest);
        if (!all) return 'E22';
        let at = 0;
        for (const r of gdbRegisters) {
          if (at + r.bits / 8 > all.length) break;
          r.write(state(), all.slice(at, at + r.bits / 8));
          at += r.bits / 8;
        }
        machine.stateChanged();
        return 'OK';
      }
      case 'p': {
        const r = gdbRegisters[Number.parseInt(rest, 16)];
        return r ? toHex(r.read(state())) : 'E14';
      }
      case 'P': {
        const [number = '', digits = ''] = rest.split('=');
        const r = gdbRegisters[Number.parseInt(number, 16)];
        const value = fromHex(digits);
        if (!r || !value || value.length < r.bits / 8) return 'E14';
        r.write(state(), value);
        machine.stateChanged();
        return 'OK';
      }
      case 'm': {
        const { address, length } = place(rest);
        if (length > PACKET_SIZE) return 'E22';
        const found = this.#read(address, length);
        return found.length === 0 && length > 0 ? 'E14' : toHex(found);
      }
      case 'M': {
        const colon = rest.indexOf(':');
        const { address, length } = place(rest.slice(0, colon));
        const data = fromHex(rest.slice(colon + 1));
        return data && data.length === length && this.#write(address, data) ? 'OK' : 'E14';
      }
      case 'X': {
        const colon = bytes.indexOf(0x3a);
        const { address, length } = place(text.slice(1, colon));
        const data = bytes.slice(colon + 1);
        return colon > 0 && data.length === length && this.#write(address, data) ? 'OK' : 'E14';
      }
      case 'Z':
      case 'z': {
        const found = /^([0-4]),([\da-f]+),([\da-f]+)/i.exec(rest);
        if (!found) return '';
        const [kind, address, length] = [Number(found[1]), BigInt(`0x${found[2]}`), Number.parseInt(found[3]!, 16)];
        if (text[0] === 'z') {
          await machine.hold(() => this.#points.remove(kind, address, length));
          return 'OK';
        }
        return (await machine.hold(() => this.#points.insert(this.#general, kind, address, length))) ? 'OK' : 'E22';
      }
      case 'c':
      case 'C':
      case 's':
      case 'S': {
        const signalled = text[0] === 'C' || text[0] === 'S';
        const address = signalled ? rest.split(';')[1] : rest;
        if (address) {
          gdbRegisters
            .find((r) => r.name === 'rip')!
            .write(state(), new Uint8Array(BigUint64Array.of(BigInt(`0x${address}`)).buffer));
          machine.stateChanged();
        }
        return this.#go(text[0]?.toLowerCase() === 's' ? this.#continue : undefined);
      }
      case 'v':
        return this.#v(text);
      case 'H': {
        const n = Number.parseInt(rest.slice(1), 16);
        if (n > 0 ? !machine.board.cpus.has(n - 1) : Number.isNaN(n)) return 'E22';
        const cpu = n > 0 ? n - 1 : rest[0] === 'g' ? this.#general : this.#continue;
        if (rest[0] === 'g') this.#general = cpu;
        else this.#continue = cpu;
        return 'OK';
      }
      case 'T': {
        const n = Number.parseInt(rest, 16);
        return n >= 1 && machine.board.cpus.has(n - 1) ? 'OK' : 'E22';
      }
      case 'D':
        await machine.hold(() => this.#points.removeAll());
        this.#reply('OK');
        this.#running = false;
        if (machine.status !== 'running') this.#e.cont();
        return undefined;
      case 'k':
        this.#e.quit('host-ui');
        return undefined;
      case 'q':
        return this.#q(text);
      case 'Q':
        return this.#set(text);
    }
    return '';
  }
  #v(text: string): string | undefined {
    if (text === 'vCont?') return 'vCont;c;C;s;S';
    if (text.startsWith('vCont;')) {
      // The first action that names a thread, or all, decides for it; a step of one lets the others go on.
      for (const action of text.slice('vCont;'.length).split(';')) {
        const [what = '', thread] = action.split(':');
        if (/^[sS]/.test(what)) {
          const n = thread === undefined ? this.#continue + 1 : Number.parseInt(thread, 16);
          return this.#go(n >= 1 && this.#machine.board.cpus.has(n - 1) ? n - 1 : this.#continue);
        }
        if (/^[cC]/.test(what)) return this.#go(undefined);
      }
      return 'E22';
    }
    if (text.startsWith('vAttach')) return this.#stopReply(SIGTRAP, this.#general);
    if (text.startsWith('vKill')) {
      this.#reply('OK');
      this.#e.quit('host-ui');
      return undefined;
    }
    return '';
  }
  async #q(text: string): Promise<string | Uint8Array> {
    const { cpus } = this.#machine.board;
    if (text.startsWith('qSupported'))
      return `PacketSize=${PACKET_SIZE.toString(16)};qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+`;
    if (text === 'qC') return `QC${(this.#general + 1).toString(16)}`;
    if (text === 'qfThreadInfo')
      return `m${cpus
        .list()
        .map((n) => (n + 1).toString(16))
        .join(',')}`;
    if (text === 'qsThreadInfo') return 'l';
    if (text.startsWith('qThreadExtraInfo,')) {
      const n = Number.parseInt(text.slice('qThreadExtraInfo,'.length), 16);
      return toHex(new TextEncoder().encode(`CPU#${n - 1} [${this.#machine.status}]`));
    }
    if (text.startsWith('qAttached')) return '1';
    if (text === 'qTStatus' || text.startsWith('qOffsets') || text.startsWith('qSymbol')) return '';
    if (text.startsWith('qRcmd,')) {
      const line = fromHex(text.slice('qRcmd,'.length));
      if (!line) return 'E22';
      const answer = await runHmp(this.#e, new TextDecoder().decode(line));
      const bytes = new TextEncoder().encode(answer.replaceAll('\r\n', '\n'));
      for (let at = 0; at < bytes.length; at += PACKET_SIZE / 4)
        this.#reply(`O${toHex(bytes.subarray(at, at + PACKET_SIZE / 4))}`);
      return 'OK';
    }
    const features = /^qXfer:features:read:target\.xml:([\da-f]+),([\da-f]+)$/i.exec(text);
    if (features) {
      const xml = targetXml();
      const [from, length] = [Number.parseInt(features[1]!, 16), Number.parseInt(features[2]!, 16)];
      return `${from + length < xml.length ? 'm' : 'l'}${xml.slice(from, from + length)}`;
    }
    if (text === 'qqemu.PhyMemMode') return this.#physical ? '1' : '0';
    return '';
  }
  #set(text: string): string {
    if (text === 'QStartNoAckMode') {
      this.#acks = false;
      return 'OK';
    }
    if (text.startsWith('Qqemu.PhyMemMode:')) {
      this.#physical = text.endsWith('1');
      return 'OK';
    }
    return '';
  }

  // -- memory

  #read(address: bigint, length: number): Uint8Array {
    if (this.#physical) return this.#machine.board.ram.slice(Number(address), length)?.slice() ?? new Uint8Array(0);
    const bytes = new VcpuMemory(this.#machine, this.#general).read(address, length);
    this.#points.hide(this.#general, address, bytes);
    return bytes;
  }
  #write(address: bigint, bytes: Uint8Array): boolean {
    if (!this.#physical) return new VcpuMemory(this.#machine, this.#general).write(address, bytes);
    const { ram: memory } = this.#machine.board;
    const into = memory.slice(Number(address), bytes.length);
    into?.set(bytes);
    if (into) memory.written(Number(address), bytes.length);
    return into !== undefined;
  }
}

/** `ADDRESS,LENGTH` in hexadecimal. @throws Error for anything else */
function place(text: string): { readonly address: bigint; readonly length: number } {
  const found = /^([\da-f]{1,16}),([\da-f]{1,8})$/i.exec(text);
  if (!found) throw new Error('malformed');
  return { address: BigInt(`0x${found[1]}`), length: Number.parseInt(found[2]!, 16) };
}
