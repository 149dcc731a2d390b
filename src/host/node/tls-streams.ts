// TLS over a connection that is there already, by certificates in files of QEMU's names. QEMU "docs/system/tls": ca-cert.pem, and for each
// end its own certificate and key; or anonymously, without any.

import { existsSync, fstatSync, readFileSync, readSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect, createServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import type { TlsCredentials } from '../../monitor/tls.ts';
import type { AdmittedFiles } from './admitted.ts';

/**
 * For clients that stumble over a session ticket of TLS 1.3, which Node can't be told not to send: libvirt's reads once when it has finished the
 * handshake and takes it for a broken connection, TigerVNC's waits for more while what came with it is in its hands.
 */
export const oneRecord = { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const;

/** What one end makes itself known by. */
export type Certificates = Pick<
  SecureContextOptions,
  'ca' | 'cert' | 'key' | 'ciphers' | 'dhparam' | 'minVersion' | 'maxVersion'
>;

/** Keys are agreed on without anybody's signature, which TLS 1.3 has no longer (RFC 5246, appendix F.1.1.1); OpenSSL has no security level for it. */
const anonymous: Certificates = { ...oneRecord, ciphers: 'ADH+AESGCM:ADH+AES:AECDH+AES:@SECLEVEL=0', dhparam: 'auto' };

/** A small file, from its beginning whoever has read it before. */
function wholeFile(path: string, admitted?: AdmittedFiles): Buffer {
  const fd = admitted?.get(path, false);
  if (fd === undefined) return readFileSync(path);
  const bytes = Buffer.alloc(fstatSync(fd).size);
  return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0));
}

/** `admitted` has files that this process may not open by itself. @throws Error naming the file that cannot be read */
export function certificates(tls: TlsCredentials, end: 'client' | 'server', admitted?: AdmittedFiles): Certificates {
  if (tls.anonymous) return anonymous;
  const read = (name: string): Buffer => {
    try {
      return wholeFile(join(tls.dir, name), admitted);
    } catch (error) {
      throw new Error(`Unable to access credentials ${join(tls.dir, name)}: ${(error as Error).message}`);
    }
  };
  const ca = read('ca-cert.pem');
  // Who connects may have none of its own; the other side says whether it wants one.
  if (end === 'client' && !existsSync(join(tls.dir, 'client-cert.pem'))) return { ca };
  return { ca, cert: read(`${end}-cert.pem`), key: read(`${end}-key.pem`) };
}

/** The end that connects: the other one has to be `host`, where it is to be verified. `at` is what errors call it. */
export function securedClient(
  socket: Socket,
  tls: TlsCredentials,
  host: string,
  at: string,
  admitted?: AdmittedFiles,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const name = tls.hostname ?? host;
    const failed = (error: Error): void => {
      socket.destroy();
      reject(new Error(`Cannot make TLS to ${at}: ${error.message}`));
    };
    try {
      const keys = certificates(tls, 'client', admitted);
      const names = isIP(name) === 0 ? { servername: name } : {};
      const secured = connect({ socket, host: name, ...keys, ...names, rejectUnauthorized: tls.verifyPeer });
      // One that is closed in the middle tells it so alone.
      const closed = (): void => failed(new Error('the connection was closed'));
      secured.once('error', failed).once('close', closed);
      secured.once('secureConnect', () => {
        secured.off('error', failed).off('close', closed);
        resolve(secured);
      });
    } catch (error) {
      failed(error as Error);
    }
  });
}

/** A certificate's subject, as Node has it, in GnuTLS's form, which QEMU shows: attributes in the certificate's order, with RFC 4514's escapes. */
export const distinguishedName = (subject: string): string =>
  subject
    .split('\n')
    .map((one) => one.replaceAll(/(?<!\\) \+ (?=[A-Za-z\d.]+=)/g, '+').replaceAll(/(?<=^|\+)emailAddress=/g, 'EMAIL='))
    .join(',');

/** The end that is connected to; where it verifies, the other one has to have a certificate of the same authority. */
export function securedServer(
  socket: Socket,
  keys: Certificates,
  verifyPeer: boolean,
  at: string,
  versions: typeof oneRecord | undefined = undefined,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      socket.destroy();
      reject(new Error(`Cannot make TLS at ${at}: ${error.message}`));
    };
    const closed = (): void => failed(new Error('the connection was closed'));
    socket.once('close', closed);
    const server = createServer({ ...keys, ...versions, requestCert: verifyPeer, rejectUnauthorized: verifyPeer }, (secured) => {
      socket.off('close', closed);
      resolve(secured);
    });
    server.once('tlsClientError', failed);
    server.emit('connection', socket);
  });
}
