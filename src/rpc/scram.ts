// SASL's SCRAM-SHA-256, the server's side, and its file of users. RFC 5802 and RFC 7677.
import { base64, fromBase64 } from './base64.ts';

export const SCRAM = 'SCRAM-SHA-256';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A user's line in the users file: `NAME:ITERATIONS:SALT:STORED_KEY:SERVER_KEY`, all but the name in base64 or decimal. */
export interface ScramUser {
  readonly name: string;
  readonly iterations: number;
  readonly salt: string;
  readonly storedKey: string;
  readonly serverKey: string;
}
export type ScramUsers = ReadonlyMap<string, ScramUser>;

export interface ScramCrypto {
  random(length: number): Uint8Array;
  sha256(bytes: Uint8Array): Uint8Array;
  hmac(key: Uint8Array, bytes: Uint8Array): Uint8Array;
}
export interface ScramDerivation extends ScramCrypto {
  /** PBKDF2 with SHA-256, 32 bytes. */
  derive(password: string, salt: Uint8Array, iterations: number): Promise<Uint8Array>;
}

export function parseUsers(text: string): ScramUsers {
  const users = new Map<string, ScramUser>();
  for (const line of text.split('\n')) {
    const [name = '', iterations = '', salt = '', storedKey = '', serverKey = ''] = line.trim().split(':');
    if (name === '' || name.startsWith('#') || serverKey === '') continue;
    users.set(name, { name, iterations: Number(iterations), salt, storedKey, serverKey });
  }
  return users;
}

/** The line for a user with a password. */
export async function scramLine(crypto: ScramDerivation, name: string, password: string, iterations = 4096): Promise<string> {
  const salt = crypto.random(16);
  const salted = await crypto.derive(password, salt, iterations);
  const storedKey = crypto.sha256(crypto.hmac(salted, encoder.encode('Client Key')));
  const serverKey = crypto.hmac(salted, encoder.encode('Server Key'));
  return [name, iterations, base64(salt), base64(storedKey), base64(serverKey)].join(':');
}

/** What the client's first message has led to. */
export interface ScramExchange {
  readonly user: ScramUser | undefined;
  /** What the client has to answer, nonce and all. */
  readonly serverFirst: string;
  readonly nonce: string;
  readonly header: string;
  readonly clientFirst: string;
}

function fields(message: string): ReadonlyMap<string, string> {
  return new Map(message.split(',').map((part) => [part.slice(0, 1), part.slice(2)]));
}

/** Bytes that do not say by the time how much of them is alike. */
const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.reduce((sum, byte, i) => sum | (byte ^ b[i]!), 0) === 0;

/** What salts of names that are not there are made of. */
const secrets = new WeakMap<ScramCrypto, Uint8Array>();
/** A salt for somebody who is not there, the same each time, so that names cannot be tried out. */
function decoy(crypto: ScramCrypto, name: string): string {
  let secret = secrets.get(crypto);
  if (!secret) {
    secret = crypto.random(32);
    secrets.set(crypto, secret);
  }
  return base64(crypto.hmac(secret, encoder.encode(name)).subarray(0, 16));
}

/** Reads the client's first message; undefined for what is none, or wants channel binding. */
export function scramFirst(crypto: ScramCrypto, users: ScramUsers, bytes: Uint8Array): ScramExchange | undefined {
  const match = /^([ny],(?:a=[^,]*)?,)(.*)$/.exec(decoder.decode(bytes));
  if (!match) return undefined;
  const [, header = '', clientFirst = ''] = match;
  const given = fields(clientFirst);
  const name = (given.get('n') ?? '').replace(/=2C/g, ',').replace(/=3D/g, '=');
  const user = users.get(name);
  const nonce = `${given.get('r') ?? ''}${base64(crypto.random(18))}`;
  const salt = user?.salt ?? decoy(crypto, name);
  return { user, nonce, header, clientFirst, serverFirst: `r=${nonce},s=${salt},i=${user?.iterations ?? 4096}` };
}

/** Checks the client's proof: the user's name and the server's signature for the answer; undefined for who is not let in. */
export function scramLast(
  crypto: ScramCrypto,
  exchange: ScramExchange,
  bytes: Uint8Array,
): { readonly name: string; readonly signature: string } | undefined {
  const message = decoder.decode(bytes);
  const { user, nonce, header, clientFirst, serverFirst } = exchange;
  const given = fields(message);
  const proof = fromBase64(given.get('p') ?? '');
  const withoutProof = message.slice(0, message.lastIndexOf(',p='));
  if (!user || given.get('r') !== nonce || given.get('c') !== base64(encoder.encode(header))) return undefined;
  const signed = encoder.encode(`${clientFirst},${serverFirst},${withoutProof}`);
  const storedKey = fromBase64(user.storedKey);
  const signature = crypto.hmac(storedKey, signed);
  if (proof.length !== signature.length) return undefined;
  const clientKey = proof.map((byte, i) => byte ^ signature[i]!);
  if (!equal(crypto.sha256(clientKey), storedKey)) return undefined;
  return { name: user.name, signature: `v=${base64(crypto.hmac(fromBase64(user.serverKey), signed))}` };
}
