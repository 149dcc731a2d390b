// `nonroot web`: the page and its API over HTTP, for who knows the token, from this page and no other. RFC 9110, RFC 6265.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, isIP } from 'node:net';
import { hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import type { RpcClient } from '../../rpc/client.ts';
import { type CommandName, checkArgs, commands } from '../../web/api.ts';
import { webFiles } from './web-files.ts';
import { command, displayOf, openConsole } from './web-guests.ts';
import { type WebChannel, webChannel } from './web-socket.ts';
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

class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Whether a request's Host is this server. Names other than these are what a foreign page would have bound to our address. */
function isOwnHost(given: string | undefined, listen: string, port: number): boolean {
  const match = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::(\d+))?$/i.exec(given ?? '');
  if (!match || Number(match[2] ?? 80) !== port) return false;
  const name = match[1]!.replace(/[[\]]/g, '').toLowerCase();
  if (name === listen.toLowerCase() || name === 'localhost' || (isIP(name) !== 0 && /^(127\.|::1$)/.test(name))) return true;
  const everywhere = listen === '0.0.0.0' || listen === '::';
  return everywhere && (isIP(name) !== 0 || name === hostname().toLowerCase());
}

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
  readonly #token = randomBytes(24).toString('base64url');
  readonly #files = webFiles();
  readonly #watch: Watch;
  readonly #channels = new Set<WebChannel>();
  #port = 0;
  #client: Promise<RpcClient> | undefined;
  readonly #http = createServer(
    { maxHeaderSize: 16 << 10, requestTimeout: 60_000 },
    (request, response) => void this.#answer(request, response),
  );

  constructor(o: WebOptions) {
    this.#o = o;
    this.#watch = new Watch(o.connect);
    this.#http.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head));
    this.#http.on('clientError', (_, socket) => socket.destroy());
  }

  async listen(): Promise<WebServer> {
    const { host, port } = this.#o;
    await new Promise<void>((resolve, reject) => {
      this.#http.once('error', (error) => reject(new Error(`Cannot listen at ${host}:${port}: ${error.message}`)));
      this.#http.listen(port, host, resolve);
    });
    this.#port = (this.#http.address() as AddressInfo).port;
    const name = host === '0.0.0.0' || host === '::' ? hostname() : isIP(host) === 6 ? `[${host}]` : host;
    return { port: this.#port, url: `http://${name}:${this.#port}/?token=${this.#token}`, close: () => this.#close() };
  }

  async #close(): Promise<void> {
    for (const channel of this.#channels) channel.close();
    this.#watch.close();
    const gone = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeAllConnections();
    (await this.#client?.catch(() => undefined))?.close();
    await gone;
  }

  // ── Who may ──

  /** The cookie's name has the port: cookies are shared between ports of a host. */
  get #cookie(): string {
    return `nonroot-${this.#port}`;
  }
  #isToken(given: string | undefined): boolean {
    const wanted = Buffer.from(this.#token);
    const found = Buffer.from(given ?? '');
    return found.length === wanted.length && timingSafeEqual(found, wanted);
  }
  #knows(request: IncomingMessage): boolean {
    const pairs = (request.headers.cookie ?? '').split(';').map((pair) => pair.trim());
    return pairs.some((pair) => pair.startsWith(`${this.#cookie}=`) && this.#isToken(pair.slice(this.#cookie.length + 1)));
  }
  /** @throws Refusal of a request that is not for this server, or comes from another page. */
  #check(request: IncomingMessage, changes: boolean): void {
    const { host, origin } = request.headers;
    if (!isOwnHost(host, this.#o.host, this.#port)) throw new Refusal(421, 'the request is for another host');
    const own = `http://${host}`;
    if (changes ? origin !== own : origin !== undefined && origin !== own)
      throw new Refusal(403, 'the request comes from another page');
  }

  // ── Requests ──

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const posted = request.method === 'POST';
      this.#check(request, posted);
      const url = new URL(request.url ?? '/', 'http://host');
      if (request.method === 'GET' && url.pathname === '/' && url.searchParams.has('token')) return this.#enter(url, response);
      if (!this.#knows(request)) throw new Refusal(403, 'open the address that nonroot web has printed');
      if (posted) await this.#command(request, response, url.pathname);
      else if (request.method === 'GET' || request.method === 'HEAD') await this.#file(request, response, url.pathname);
      else throw new Refusal(405, 'accepted are GET, HEAD and POST');
    } catch (error) {
      const status = error instanceof Refusal ? error.status : 500;
      // What is left of a body is not read: the connection ends with the answer.
      if (!request.complete) response.setHeader('Connection', 'close');
      this.#send(response, status, 'application/json', JSON.stringify({ error: (error as Error).message }));
    }
  }

  #send(response: ServerResponse, status: number, type: string, body: Uint8Array | string): void {
    response.writeHead(status, {
      'Content-Type': type,
      'Content-Length': Buffer.byteLength(body),
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      'X-Frame-Options': 'DENY',
      'Referrer-Policy': 'no-referrer',
      'Cross-Origin-Resource-Policy': 'same-origin',
      'Cross-Origin-Opener-Policy': 'same-origin',
    });
    response.end(response.req.method === 'HEAD' ? undefined : body);
  }

  /** The token of the address becomes a cookie, and leaves the address. */
  #enter(url: URL, response: ServerResponse): void {
    if (!this.#isToken(url.searchParams.get('token') ?? undefined))
      throw new Refusal(403, 'the token is not the one of this server');
    response.setHeader('Set-Cookie', `${this.#cookie}=${this.#token}; HttpOnly; SameSite=Strict; Path=/`);
    response.setHeader('Location', '/');
    this.#send(response, 303, 'text/plain', '');
  }

  async #file(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const file = await this.#files.get(path);
    if (file === undefined) throw new Refusal(404, 'there is no such file');
    if (path === '/') {
      // Styles in the document are those that the terminal makes of its colours.
      const policy = `default-src 'none'; script-src 'self' ${await this.#files.inline()}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' ws://${request.headers.host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
      response.setHeader('Content-Security-Policy', policy);
    }
    this.#send(response, 200, file.type, file.bytes);
  }

  async #command(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const name = /^\/api\/(\w+)$/.exec(path)?.[1] ?? '';
    if (!Object.hasOwn(commands, name)) throw new Refusal(404, `there is no command ${name.slice(0, 40)}`);
    const body = await bodyOf(request);
    try {
      const args = checkArgs(name as CommandName, body);
      const answer = await command(await this.#daemon(), name as CommandName, args);
      this.#send(response, 200, 'application/json', JSON.stringify(answer));
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

  // ── WebSockets ──

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Uint8Array): Promise<void> {
    socket.on('error', () => {});
    try {
      this.#check(request, true);
      if (!this.#knows(request)) throw new Refusal(403, 'no token');
      const url = new URL(request.url ?? '/', 'http://host');
      const uuid = url.searchParams.get('uuid') ?? '';
      if (url.pathname === '/ws/events') this.#watch.add(this.#keep(webChannel(request, socket, head, () => {})));
      else if (url.pathname === '/ws/console') await this.#console(request, socket, head, uuid);
      else if (url.pathname === '/ws/display') await this.#display(request, socket, head, uuid);
      else throw new Refusal(404, 'there is no such channel');
    } catch (error) {
      const status = error instanceof Refusal ? `${error.status} Refused` : '502 Bad Gateway';
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    }
  }

  #keep(channel: WebChannel): WebChannel {
    this.#channels.add(channel);
    void channel.closed.then(() => this.#channels.delete(channel));
    return channel;
  }

  /** A guest's console, over a connection of its own: a browser that does not read holds nobody else. */
  async #console(request: IncomingMessage, socket: Duplex, head: Uint8Array, uuid: string): Promise<void> {
    const client = await this.#o.connect();
    const opened = openConsole(client, uuid);
    opened.catch(() => {});
    const channel = this.#keep(webChannel(request, socket, head, async (bytes) => (await opened).write(bytes)));
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
    const channel = this.#keep(
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
