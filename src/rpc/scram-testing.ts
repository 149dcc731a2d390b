// The client's side of SCRAM-SHA-256, for tests. RFC 5802, section 3.
import { base64, fromBase64 } from './base64.ts';
import type { ScramDerivation } from './scram.ts';

const encoder = new TextEncoder();

export class ScramClient {
  readonly #crypto: ScramDerivation;
  readonly #password: string;
  readonly #bare: string;

  constructor(crypto: ScramDerivation, name: string, password: string, nonce: string) {
    this.#crypto = crypto;
    this.#password = password;
    this.#bare = `n=${name},r=${nonce}`;
  }
  get first(): string {
    return `n,,${this.#bare}`;
  }
  /** The answer to the server's first message, and what the server has to say then. */
  async final(serverFirst: string): Promise<{ readonly message: string; readonly expected: string }> {
    const { sha256, hmac, derive } = this.#crypto;
    const given = new Map(serverFirst.split(',').map((part) => [part.slice(0, 1), part.slice(2)]));
    const salted = await derive(this.#password, fromBase64(given.get('s')!), Number(given.get('i')));
    const without = `c=${base64(encoder.encode('n,,'))},r=${given.get('r')}`;
    const signed = encoder.encode(`${this.#bare},${serverFirst},${without}`);
    const clientKey = hmac(salted, encoder.encode('Client Key'));
    const signature = hmac(sha256(clientKey), signed);
    const proof = clientKey.map((byte, i) => byte ^ signature[i]!);
    return {
      message: `${without},p=${base64(proof)}`,
      expected: `v=${base64(hmac(hmac(salted, encoder.encode('Server Key')), signed))}`,
    };
  }
}
