// `nonroot web`: the page and its API over HTTP, before a daemon.

import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import type { RpcClient } from '../../rpc/client.ts';
import { type CommandName, checkArgs, commands } from '../../web/api.ts';
import { Refusal, WebGate } from './web-gate.ts';
import { command, displayOf, openConsole } from './web-guests.ts';
import { webChannel } from './web-socket.ts';
import { Watch } from './web-watch.ts';

export interface WebOptions {
  readonly host: string;
  readonly port: number;
  /** A new connection to the daemon. */
  readonly connect: () => Promise<RpcClient>;
  /** The daemon's machine, for displays. */
  readonly daemonHost: string;
}
export interface WebServer {
  readonly port: number;
  /** The address to open, with the token. */
  readonly url: string;
  close(): Promise<void>;
}

/** Longest body of a command: a guest's document. */
const bodyMax = 1 << 20;

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  if (!/^application\/json\b/.test(request.headers['content-type'] ?? '')) throw new Refusal(415, 'accepted is application/json');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bodyMax) throw new Refusal(413, `the body is longer than ${bodyMax} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Refusal(400, 'the body is no JSON');
  }
}

class Server {
  readonly #o: WebOptions;
  readonly #watch: Watch;
  readonly #gate: WebGate;
  #client: Promise<RpcClient> | undefined;

  constructor(o: WebOptions) {
    this.#o = o;
    this.#watch = new Watch(o.connect);
    this.#gate = new WebGate({
      host: o.host,
      port: o.port,
      index: '/',
      post: (request, path) => this.#command(request, path),
      channel: (...args) => this.#channel(...args),
    });
  }

  async listen(): Promise<WebServer> {
    return { ...(await this.#gate.listen()), close: () => this.#close() };
  }

  async #close(): Promise<void> {
    this.#watch.close();
    await this.#gate.close();
    (await this.#client?.catch(() => undefined))?.close();
  }

  async #command(request: IncomingMessage, path: string): Promise<unknown> {
    const name = /^\/api\/(\w+)$/.exec(path)?.[1] ?? '';
    if (!Object.hasOwn(commands, name)) throw new Refusal(404, `there is no command ${name.slice(0, 40)}`);
    const body = await bodyOf(request);
    try {
      const args = checkArgs(name as CommandName, body);
      return await command(await this.#daemon(), name as CommandName, args);
    } catch (error) {
      throw new Refusal(400, (error as Error).message);
    }
  }

  /** The connection that commands share, made again when it was lost. */
  #daemon(): Promise<RpcClient> {
    const made = (this.#client ??= this.#o.connect());
    const forget = (): void => {
      if (this.#client === made) this.#client = undefined;
    };
    made.then((client) => client.closed.then(forget), forget);
    return made;
  }

  async #channel(url: URL, request: IncomingMessage, socket: Duplex, head: Uint8Array): Promise<void> {
    const uuid = url.searchParams.get('uuid') ?? '';
    if (url.pathname === '/ws/events') this.#watch.add(this.#gate.keep(webChannel(request, socket, head, () => {})));
    else if (url.pathname === '/ws/console') await this.#console(request, socket, head, uuid);
    else if (url.pathname === '/ws/display') await this.#display(request, socket, head, uuid);
    else throw new Refusal(404, 'there is no such channel');
  }

  /** A guest's console, over a connection of its own: a browser that does not read holds nobody else. */
  async #console(request: IncomingMessage, socket: Duplex, head: Uint8Array, uuid: string): Promise<void> {
    const client = await this.#o.connect();
    const opened = openConsole(client, uuid);
    opened.catch(() => {});
    const channel = this.#gate.keep(webChannel(request, socket, head, async (bytes) => (await opened).write(bytes)));
    void channel.closed.then(() => client.close());
    try {
      for await (const item of await opened) if (item instanceof Uint8Array) await channel.send(item);
      await channel.send('the console has ended');
    } catch (error) {
      await channel.send((error as Error).message);
    }
    channel.close();
    client.close();
  }

  /** A guest's VNC server, as bytes. */
  async #display(request: IncomingMessage, socket: Duplex, head: Uint8Array, uuid: string): Promise<void> {
    const place = await displayOf(await this.#daemon(), uuid, this.#o.daemonHost);
    const server = place.socket === undefined ? connect(place.port, place.host) : connect({ path: place.socket });
    await new Promise<void>((resolve, reject) => {
      server.once('connect', resolve);
      server.once('error', reject);
    });
    server.on('error', () => {});
    const channel = this.#gate.keep(
      webChannel(request, socket, head, (bytes) =>
        server.destroyed || server.write(bytes)
          ? undefined
          : new Promise<void>((resolve) => {
              server.once('drain', resolve);
              server.once('close', () => resolve());
            }),
      ),
    );
    void channel.closed.then(() => server.destroy());
    try {
      for await (const bytes of server as AsyncIterable<Uint8Array>) await channel.send(bytes);
    } catch {
      // The server has gone, as below.
    }
    channel.close();
  }
}

/** Serves until it is closed. @throws Error (rejects) with one line where it cannot listen */
export const startWeb = (o: WebOptions): Promise<WebServer> => new Server(o).listen();
