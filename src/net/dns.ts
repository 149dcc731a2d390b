// The virtual nameserver: passes queries to the host's resolvers and their answers back. RFC 1035, section 4.2.1; RFC 5452 (what an answer must match).
import { type Address, familyOf, parseAddress } from './address.ts';
import { get16 } from './bytes.ts';
import type { HostSockets, HostUdp } from './host.ts';
import type { Link } from './link.ts';
import { Timer } from './timer.ts';
import { type Datagram, sendUdp } from './udp.ts';

/** Queries that wait for an answer, and ms until the next resolver is asked. */
const limits = { queries: 128, patience: 2500 } as const;
const maxQuery = 4096;

interface Query {
  readonly guest: Address;
  readonly guestPort: number;
  readonly server: Address;
  readonly data: Uint8Array;
  readonly timer: Timer;
  tries: number;
  socket: HostUdp | undefined;
}

/** The answer to a query when nobody can be asked: the header and question with the code "server failure". */
export function serverFailure(query: Uint8Array): Uint8Array {
  const a = query.slice();
  a[2] = 0x80 | (a[2] & 0x79);
  a[3] = 0x82;
  return a;
}

export class DnsForwarder {
  readonly #link: Link;
  readonly #host: HostSockets;
  readonly #queries = new Set<Query>();

  constructor(link: Link, host: HostSockets) {
    this.#link = link;
    this.#host = host;
  }

  /** Queries that wait for an answer. */
  get size(): number {
    return this.#queries.size;
  }

  /** Takes a guest's query. Each goes out from a socket of its own, so that its port can't be guessed. */
  query(d: Datagram): void {
    if (d.data.length < 12 || d.data.length > maxQuery || (d.data[2] & 0x80) !== 0) return;
    const q: Query = {
      guest: d.src.slice(),
      guestPort: d.srcPort,
      server: d.dst.slice(),
      data: d.data.slice(),
      timer: new Timer(this.#host, () => this.#ask(q)),
      tries: 0,
      socket: undefined,
    };
    this.#queries.add(q);
    if (this.#queries.size > limits.queries) this.#finish(this.#queries.values().next().value!);
    this.#ask(q);
  }

  #ask(q: Query): void {
    const resolver = this.#host.resolvers()[q.tries++];
    q.socket?.close();
    q.socket = undefined;
    const address = resolver === undefined ? undefined : parseAddress(resolver.address);
    if (resolver === undefined) return this.#answer(q, serverFailure(q.data));
    if (address === undefined) return this.#ask(q);
    q.timer.set(limits.patience);
    q.socket = this.#host.udp(
      { family: familyOf(address) },
      {
        bound: () => {},
        failed: () => {
          if (this.#queries.has(q)) this.#ask(q);
        },
        message: (data, from, port) => {
          const sender = parseAddress(from);
          const right =
            sender !== undefined && familyOf(sender) === familyOf(address) && sender.every((x, i) => x === address[i]);
          if (!right || port !== resolver.port || data.length < 12 || get16(data, 0) !== get16(q.data, 0)) return;
          if ((data[2] & 0x80) !== 0) this.#answer(q, data);
        },
      },
    );
    q.socket.send(q.data.slice(), resolver.address, resolver.port);
  }

  #answer(q: Query, data: Uint8Array): void {
    if (!this.#queries.has(q)) return;
    this.#finish(q);
    sendUdp(this.#link, { src: q.server, srcPort: 53, dst: q.guest, dstPort: q.guestPort, data });
  }

  #finish(q: Query): void {
    this.#queries.delete(q);
    q.timer.close();
    q.socket?.close();
  }

  close(): void {
    for (const q of this.#queries) this.#finish(q);
  }
}
