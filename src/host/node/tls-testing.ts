// Certificates for tests of TLS, made by openssl(1).

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Why there can be no certificates; false when there can. */
export const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed';
/** An authority with certificates of both ends, by QEMU's names, in a new directory; they are for `there` and 127.0.0.1. */
export function makeCertificates(): string {
  const dir = mkdtempSync(join(tmpdir(), 'nonroot-tls-'));
  const openssl = (...args: string[]): void => {
    const { status, stderr } = spawnSync('openssl', args, { cwd: dir, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-days', '2', '-subj', '/CN=authority');
  writeFileSync(join(dir, 'ext'), 'subjectAltName=DNS:there,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
  for (const end of ['server', 'client']) {
    openssl('req', ...key, '-keyout', `${end}-key.pem`, '-out', `${end}.csr`, '-subj', `/CN=${end}`);
    const signed = ['-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', '-days', '2', '-extfile', 'ext'];
    openssl('x509', '-req', '-in', `${end}.csr`, ...signed, '-out', `${end}-cert.pem`);
  }
  return dir;
}
