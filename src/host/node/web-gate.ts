// A server on this machine for a browser: files and WebSockets for who knows the token, from its own page and no other. RFC 9110, RFC 6265.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type AddressInfo, isIP } from 'node:net';
import { hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import { webFiles } from './web-files.ts';
import type { WebChannel } from './web-socket.ts';

/** An answer with an HTTP status. */
export class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface WebGateOptions {
  readonly host: string;
  readonly port: number;
  /** The path of the file that `/` is. */
  readonly index: '/' | '/display';
  /** Answers a POST. @throws Refusal (rejects) */
  readonly post: (request: IncomingMessage, path: string) => Promise<unknown>;
  /** Takes a WebSocket over. @throws Refusal (rejects) */
  readonly channel: (url: URL, request: IncomingMessage, socket: Duplex, head: Uint8Array) => Promise<void> | void;
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

export class WebGate {
  readonly #o: WebGateOptions;
  readonly #token = randomBytes(24).toString('base64url');
  readonly #files = webFiles();
  readonly #channels = new Set<WebChannel>();
  #port = 0;
  readonly #http = process
    .getBuiltinModule('node:http')
    .createServer(
      { maxHeaderSize: 16 << 10, requestTimeout: 60_000 },
      (request, response) => void this.#answer(request, response),
    );

  constructor(o: WebGateOptions) {
    this.#o = o;
    this.#http.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head));
    this.#http.on('clientError', (_, socket) => socket.destroy());
  }

  /** @throws Error (rejects) with one line where it cannot listen; gives the port and the address to open, with the token */
  async listen(): Promise<{ readonly port: number; readonly url: string }> {
    const { host, port } = this.#o;
    await new Promise<void>((resolve, reject) => {
      this.#http.once('error', (error) => reject(new Error(`Cannot listen at ${host}:${port}: ${error.message}`)));
      this.#http.listen(port, host, resolve);
    });
    this.#port = (this.#http.address() as AddressInfo).port;
    const name = host === '0.0.0.0' || host === '::' ? hostname() : isIP(host) === 6 ? `[${host}]` : host;
    return { port: this.#port, url: `http://${name}:${this.#port}/?token=${this.#token}` };
  }

  async close(): Promise<void> {
    for (const channel of this.#channels) channel.close();
    const gone = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeAllConnections();
    await gone;
  }

  /** A channel that ends with the server. */
  keep(channel: WebChannel): WebChannel {
    this.#channels.add(channel);
    void channel.closed.then(() => this.#channels.delete(channel));
    return channel;
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
      if (posted) this.#send(response, 200, 'application/json', JSON.stringify(await this.#o.post(request, url.pathname)));
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
    const index = path === '/';
    const file = await this.#files.get(index ? this.#o.index : path);
    if (file === undefined) throw new Refusal(404, 'there is no such file');
    if (index) {
      // Styles in the document are those that the terminal makes of its colours.
      const policy = `default-src 'none'; script-src 'self' ${await this.#files.inline(this.#o.index)}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' ws://${request.headers.host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
      response.setHeader('Content-Security-Policy', policy);
    }
    this.#send(response, 200, file.type, file.bytes);
  }

  // ── WebSockets ──

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Uint8Array): Promise<void> {
    socket.on('error', () => {});
    try {
      this.#check(request, true);
      if (!this.#knows(request)) throw new Refusal(403, 'no token');
      await this.#o.channel(new URL(request.url ?? '/', 'http://host'), request, socket, head);
    } catch (error) {
      const status = error instanceof Refusal ? `${error.status} Refused` : '502 Bad Gateway';
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    }
  }
}
