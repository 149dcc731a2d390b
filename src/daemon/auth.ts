// Who a client is: nothing on a unix socket, SASL's SCRAM-SHA-256 where the configuration asks for it, and the list of who may come in.
// RFC 5802 and RFC 7677; libvirt "Connection authentication".
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { base64, fromBase64 } from './base64.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { translateErrors } from './errors.ts';
import type { Session } from './sessions.ts';

const mechanism = 'SCRAM-SHA-256';
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

export function parseUsers(text: string): ReadonlyMap<string, ScramUser> {
  const users = new Map<string, ScramUser>();
  for (const line of text.split('\n')) {
    const [name = '', iterations = '', salt = '', storedKey = '', serverKey = ''] = line.trim().split(':');
    if (name === '' || name.startsWith('#') || serverKey === '') continue;
    users.set(name, { name, iterations: Number(iterations), salt, storedKey, serverKey });
  }
  return users;
}

type Crypto = Daemon['host']['crypto'];

/** The line for a user with a password. */
export async function scramLine(crypto: Crypto, name: string, password: string, iterations = 4096): Promise<string> {
  const salt = crypto.random(16);
  const salted = await crypto.derive(password, salt, iterations);
  const storedKey = crypto.sha256(crypto.hmac(salted, encoder.encode('Client Key')));
  const serverKey = crypto.hmac(salted, encoder.encode('Server Key'));
  return [name, iterations, base64(salt), base64(storedKey), base64(serverKey)].join(':');
}

interface Exchange {
  readonly user: ScramUser | undefined;
  readonly nonce: string;
  readonly clientFirst: string;
  readonly serverFirst: string;
}

const failed = () => libvirtError('authFailed', 'rpc', 'authentication failed');

function fields(message: string): ReadonlyMap<string, string> {
  return new Map(message.split(',').map((part) => [part.slice(0, 1), part.slice(2)]));
}

/** Bytes that do not say by the time how much of them is alike. */
const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.reduce((sum, byte, i) => sum | (byte ^ b[i]!), 0) === 0;

function first(crypto: Crypto, users: ReadonlyMap<string, ScramUser>, message: string): Exchange {
  const match = /^([ny]|p=[^,]+),(a=[^,]*)?,(.*)$/.exec(message);
  if (!match || match[1]!.startsWith('p')) throw failed();
  const clientFirst = match[3]!;
  const given = fields(clientFirst);
  const name = (given.get('n') ?? '').replace(/=2C/g, ',').replace(/=3D/g, '=');
  const user = users.get(name);
  const nonce = `${given.get('r') ?? ''}${base64(crypto.random(18))}`;
  // Somebody who is not there gets a salt too, so that names can't be tried out.
  const salt = user?.salt ?? base64(crypto.hmac(encoder.encode('no such user'), encoder.encode(name)).subarray(0, 16));
  return { user, nonce, clientFirst, serverFirst: `r=${nonce},s=${salt},i=${user?.iterations ?? 4096}` };
}

/** Checks the client's proof; the server's signature for the answer. */
function last(crypto: Crypto, exchange: Exchange, message: string): string {
  const given = fields(message);
  const proof = fromBase64(given.get('p') ?? '');
  const withoutProof = message.slice(0, message.lastIndexOf(',p='));
  if (exchange.user === undefined || given.get('r') !== exchange.nonce) throw failed();
  const signed = encoder.encode(`${exchange.clientFirst},${exchange.serverFirst},${withoutProof}`);
  const storedKey = fromBase64(exchange.user.storedKey);
  const signature = crypto.hmac(storedKey, signed);
  if (proof.length !== signature.length) throw failed();
  const clientKey = proof.map((byte, i) => byte ^ signature[i]!);
  if (!equal(crypto.sha256(clientKey), storedKey)) throw failed();
  return `v=${base64(crypto.hmac(fromBase64(exchange.user.serverKey), signed))}`;
}

/** A pattern of the allow list: `*` stands for anything. */
const matches = (pattern: string, name: string): boolean =>
  new RegExp(`^${pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`).test(name);

/** Whether the list lets somebody in; an empty list lets everybody. */
export const isAllowed = (allow: readonly string[], name: string): boolean =>
  allow.length === 0 || allow.some((pattern) => matches(pattern, name));

export function authHandlers(daemon: Daemon): RemoteHandlers {
  const { host, options, sessions } = daemon;
  const { crypto } = host;
  const finish = (session: Session, exchange: Exchange): void => {
    const name = exchange.user!.name;
    if (!isAllowed(options.allow, name)) throw failed();
    session.user = name;
    session.authentication = 'done';
  };
  const answer = (complete: boolean, text: string | undefined) => ({
    complete,
    nil: text === undefined,
    data: text === undefined ? new Uint8Array() : encoder.encode(text),
  });
  const pending = (session: Session): void => {
    if (session.authentication !== 'sasl') throw libvirtError('authFailed', 'rpc', 'client tried invalid SASL init request');
  };
  return translateErrors('rpc', {
    authList(_, call) {
      return { types: [sessions.of(call).authentication === 'sasl' ? ('sasl' as const) : ('none' as const)] };
    },
    authSaslInit(_, call) {
      pending(sessions.of(call));
      return { mechanisms: mechanism };
    },
    async authSaslStart({ mechanism: wanted, nil, data }, call) {
      const session = sessions.of(call);
      pending(session);
      if (wanted !== mechanism) throw failed();
      const users = parseUsers(options.usersFile === undefined ? '' : ((await host.files.read(options.usersFile)) ?? ''));
      if (nil) {
        session.sasl = { users };
        return answer(false, '');
      }
      const exchange = first(crypto, users, decoder.decode(data));
      session.sasl = exchange;
      return answer(false, exchange.serverFirst);
    },
    authSaslStep({ data }, call) {
      const session = sessions.of(call);
      pending(session);
      const state = session.sasl as Exchange | { users: ReadonlyMap<string, ScramUser> } | { done: Exchange } | undefined;
      if (state === undefined) throw failed();
      if ('users' in state) {
        const exchange = first(crypto, state.users, decoder.decode(data));
        session.sasl = exchange;
        return answer(false, exchange.serverFirst);
      }
      if ('done' in state) {
        finish(session, state.done);
        return answer(true, undefined);
      }
      const signature = last(crypto, state, decoder.decode(data));
      finish(session, state);
      return answer(true, signature);
    },
  } satisfies RemoteHandlers);
}
