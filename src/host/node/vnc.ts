// VNC's sockets: TCP, unix sockets and WebSocket for `-vnc`, zlib and DES for its encodings and passwords.
import { createCipheriv, createHash, createHmac, randomBytes } from 'node:crypto';
import { readFileSync, unlinkSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { constants, createDeflate, deflate as deflateAll } from 'node:zlib';
import type { Zlib } from '../../display/image.ts';
import type { RfbSasl, RfbTransport } from '../../display/rfb-session.ts';
import { Vnc, type VncAddress, type VncServer, type VncServerOptions } from '../../display/vnc.ts';
import type { Deflater } from '../../rpc/rfb/encode.ts';
import { parseUsers } from '../../rpc/scram.ts';
import { WebSocketServer } from '../../rpc/websocket.ts';
import { type Certificates, certificates, distinguishedName, oneRecord, securedServer } from './tls-streams.ts';

/** Bytes of control frames that may wait for a client that does not read. */
const UNREAD_MAX = 1 << 20;

/** Whole pieces of data in zlib's format, for pictures. */
export const zlib: Zlib = (bytes) =>
  new Promise((resolve, reject) => deflateAll(bytes, (error, out) => (error ? reject(error) : resolve(out))));

/** A zlib stream on the thread pool. */
export function deflater(level: number): Deflater {
  const stream = createDeflate({ level, memLevel: 9 });
  const chunks: Buffer[] = [];
  let failed: Error | undefined;
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('error', (error) => {
    failed = error;
  });
  return {
    push: (bytes) =>
      new Promise((resolve, reject) => {
        stream.write(bytes);
        stream.flush(constants.Z_SYNC_FLUSH, () => {
          if (failed || stream.destroyed) reject(failed ?? new Error('Cannot compress: the stream is closed'));
          else resolve(Buffer.concat(chunks.splice(0)));
        });
      }),
    close: () => stream.destroy(),
  };
}

/** DES with one key is triple DES with the same key three times. */
export function des(key: Uint8Array, blocks: Uint8Array): Uint8Array {
  const cipher = createCipheriv('des-ede3-ecb', Buffer.concat([key, key, key]), null).setAutoPadding(false);
  return Buffer.concat([cipher.update(blocks), cipher.final()]);
}

const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};
/** Where SASL's settings may be, and the file of users that they name. */
function saslSettings(): { readonly places: readonly string[]; readonly file: string | undefined } {
  const places = (process.env['SASL_CONF_PATH'] || '/etc/sasl2:/usr/lib/sasl2').split(':').map((dir) => join(dir, 'qemu.conf'));
  const settings = places.map(textOf).find((text) => text !== undefined);
  return { places, file: /^[ \t]*users_file[ \t]*:[ \t]*(\S.*?)[ \t]*$/m.exec(settings ?? '')?.[1] };
}
/** The files that SASL reads. */
export function saslFiles(): readonly string[] {
  const { places, file } = saslSettings();
  return file === undefined ? places : [...places, file];
}

/**
 * Who may come in by SASL: where Cyrus SASL looks for its settings of the application `qemu`, `users_file` names a file with a line for each. It is
 * read for each client anew. @throws Error with one line where there is none
 */
function sasl(): RfbSasl {
  const { places, file } = saslSettings();
  if (file === undefined)
    throw new Error(
      `Cannot ask VNC clients by SASL: no users_file: PATH in ${places.join(' or ')} (SASL_CONF_PATH names other folders)`,
    );
  const users = () => {
    const text = textOf(file);
    if (text === undefined) throw new Error(`Cannot read the users of SASL in ${file}`);
    return parseUsers(text);
  };
  users();
  return {
    users,
    crypto: {
      random: (n) => randomBytes(n),
      sha256: (bytes) => createHash('sha256').update(bytes).digest(),
      hmac: (key, bytes) => createHmac('sha256', key).update(bytes).digest(),
    },
  };
}

/** Starts a server. Rejects with one line where it cannot listen. */
export async function startVnc(o: VncServerOptions): Promise<VncServer> {
  const vnc = new Vnc({
    ...o,
    sasl: o.sasl ? sasl() : undefined,
    des,
    random: (n) => randomBytes(n),
    deflate: deflater,
    time: () => Date.now() / 1000,
    after: (ms, f) => {
      const timer = setTimeout(f, ms).unref();
      return () => clearTimeout(timer);
    },
  });
  const tls: Tls | undefined = o.tls && { keys: certificates(o.tls, 'server'), verifyPeer: o.tls.verifyPeer };
  const servers: Server[] = [];
  const addresses: VncAddress[] = [];
  const start = async (websocket: boolean, ...where: Parameters<typeof listen>): Promise<void> => {
    const server = await listen(...where);
    servers.push(server);
    addresses.push(addressOf(server.address(), websocket));
    server.on('connection', (socket) => void serve(vnc, socket, websocket, tls));
  };
  try {
    if (o.listen?.kind === 'unix') await start(false, { path: o.listen.path });
    else if (o.listen?.kind === 'tcp') {
      const { host, port, to = port, websocket } = o.listen;
      await start(false, { host, port, to });
      if (websocket !== undefined) await start(true, { host, port: websocket, to: websocket });
    }
  } catch (error) {
    for (const s of servers) s.close();
    throw error;
  }
  return {
    vnc,
    addresses,
    close() {
      vnc.disconnectAll();
      for (const s of servers) s.close();
    },
  };
}

type Where = { readonly path: string } | { readonly host: string; readonly port: number; readonly to: number };

async function listen(where: Where): Promise<Server> {
  if ('path' in where) {
    try {
      unlinkSync(where.path);
    } catch {
      // There was none.
    }
    return listenAt({ path: where.path }, where.path);
  }
  for (let port = where.port; ; port++) {
    try {
      return await listenAt({ host: where.host || undefined, port }, `${where.host}:${port}`);
    } catch (error) {
      if (port >= where.to) throw error;
    }
  }
}

function listenAt(options: { path?: string; host?: string | undefined; port?: number }, name: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ noDelay: true });
    server.once('error', (error) => reject(new Error(`Cannot listen for VNC on ${name}: ${error.message}`)));
    server.listen(options, () => {
      server.unref();
      resolve(server);
    });
  });
}

function addressOf(a: AddressInfo | string | null, websocket: boolean): VncAddress {
  if (typeof a === 'string' || a === null) return { host: '', service: a ?? '', family: 'unix', websocket };
  return { host: a.address, service: String(a.port), family: a.family === 'IPv6' ? 'ipv6' : 'ipv4', websocket };
}

interface Tls {
  readonly keys: Certificates;
  readonly verifyPeer: boolean;
}
/** ms that a client may take for TLS and WebSocket. */
const HANDSHAKE_MS = 10_000;

/** One connection, from its first byte to its last. */
async function serve(vnc: Vnc, plain: Socket, websocket: boolean, tls: Tls | undefined): Promise<void> {
  let socket = plain;
  const server =
    socket.localAddress === undefined
      ? addressOf(null, websocket)
      : addressOf({ address: socket.localAddress, port: socket.localPort!, family: socket.localFamily! }, websocket);
  const client =
    socket.remoteAddress === undefined
      ? addressOf(null, websocket)
      : addressOf({ address: socket.remoteAddress, port: socket.remotePort!, family: socket.remoteFamily! }, websocket);
  // Errors end in `close`.
  socket.on('error', () => {});
  if (!websocket) {
    const heard = (bytes: Buffer): void => session?.receive(bytes);
    const way = transport(
      () => socket,
      (bytes) => bytes,
    );
    const secure = async (last: Uint8Array): Promise<string | undefined> => {
      plain.off('data', heard).pause();
      plain.write(last);
      const secured = await securedServer(plain, tls!.keys, tls!.verifyPeer, 'VNC', oneRecord);
      socket = secured;
      socket.on('error', () => {});
      socket.on('data', heard);
      socket.on('close', () => session?.close());
      return tls!.verifyPeer ? nameOf(secured) : undefined;
    };
    const session = vnc.connect(tls ? { ...way, secure } : way, server, client);
    socket.on('data', heard);
    socket.on('close', () => session?.close());
    return;
  }
  const timer = setTimeout(() => {
    if (!ws?.open) plain.destroy();
  }, HANDSHAKE_MS).unref();
  plain.on('close', () => clearTimeout(timer));
  let ws: WebSocketServer | undefined;
  let dname: string | undefined;
  if (tls) {
    const secured = await securedServer(plain, tls.keys, tls.verifyPeer, 'VNC').catch(() => undefined);
    if (!secured) return;
    socket = secured;
    if (tls.verifyPeer) dname = nameOf(secured);
    socket.on('error', () => {});
  }
  let session: ReturnType<Vnc['connect']>;
  ws = new WebSocketServer({
    sha1: (text) => createHash('sha1').update(text).digest('base64'),
    protocols: ['binary'],
    data: (bytes) => session?.receive(bytes),
    send: (bytes) => {
      // Answers to pings that nobody reads are not kept.
      if (socket.writableLength > UNREAD_MAX) socket.destroy();
      else socket.write(bytes);
    },
    end: () => {
      session?.close();
      socket.end();
    },
  });
  const talk = ws;
  socket.on('data', (bytes: Buffer) => {
    const was = talk.open;
    talk.receive(bytes);
    if (!was && talk.open)
      session = vnc.connect(
        {
          ...transport(
            () => socket,
            (b) => WebSocketServer.frame(b),
          ),
          dname,
        },
        server,
        client,
      );
  });
  socket.on('close', () => session?.close());
}

/** The subject of the other side's certificate. */
function nameOf(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate && distinguishedName(certificate.subject);
}

/** Writes wait until the socket's buffer is empty: what a client does not read is not made. */
function transport(current: () => Socket, wrap: (bytes: Uint8Array) => Uint8Array): RfbTransport {
  return {
    write: (bytes) =>
      new Promise((resolve, reject) => {
        const socket = current();
        if (socket.destroyed) reject(new Error('Cannot send: the connection is closed'));
        else socket.write(wrap(bytes), (error) => (error ? reject(error) : resolve()));
      }),
    close: () => {
      const socket = current();
      socket.end();
      // A client that does not end its side is not waited for.
      setTimeout(() => socket.destroy(), 1000).unref();
    },
  };
}
