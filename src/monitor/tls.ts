// TLS credentials that a monitor's objects describe: `tls-creds-x509` and `tls-creds-anon`. QEMU 7.2, qapi/crypto.json.

import { QmpError } from '../rpc/qmp/error.ts';
import type { Json } from '../rpc/qmp/json.ts';

/** TLS by certificates in files of QEMU's names: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-…`. */
export interface TlsCredentials {
  readonly dir: string;
  /** Without certificates: what is sent is secret, who the other side is nobody knows. */
  readonly anonymous?: boolean;
  readonly verifyPeer: boolean;
  /** The name that the other side's certificate must have, for who connects; the address's where it is absent. */
  readonly hostname?: string | undefined;
}

interface Objects {
  get(id: string): { readonly type: string; readonly values: { readonly [name: string]: Json } } | undefined;
}

/** The credentials of that id, for one end. @throws QmpError */
export function tlsCredentials(objects: Objects, id: string, endpoint: 'client' | 'server', hostname?: string): TlsCredentials {
  const found = objects.get(id);
  if (!found) throw new QmpError(`No TLS credentials with id '${id}'`);
  if (found.type !== 'tls-creds-x509' && found.type !== 'tls-creds-anon')
    throw new QmpError(`Object with id '${id}' is not TLS credentials`);
  const { values } = found;
  if ((values['endpoint'] ?? 'client') !== endpoint) throw new QmpError(`Expected TLS credentials for a ${endpoint} endpoint`);
  if (values['passwordid'] !== undefined) throw new QmpError(`'${id}': keys with a password are not supported`);
  const dir = String(values['dir'] ?? '');
  if (found.type === 'tls-creds-anon') return { dir, anonymous: true, verifyPeer: false };
  return { dir, verifyPeer: values['verify-peer'] !== false, hostname };
}
