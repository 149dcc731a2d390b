// Who a client is: nothing on a unix socket, SASL's SCRAM-SHA-256 where the configuration asks for it, and the list of who may come in.
// libvirt "Connection authentication".
import { libvirtError } from '../rpc/libvirt/errors.ts';
import { parseUsers, SCRAM, type ScramExchange, type ScramUsers, scramFirst, scramLast } from '../rpc/scram.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { translateErrors } from './errors.ts';
import type { Session } from './sessions.ts';

const encoder = new TextEncoder();

const failed = () => libvirtError('authFailed', 'rpc', 'authentication failed');

/** A pattern of the allow list: `*` stands for anything. */
const matches = (pattern: string, name: string): boolean =>
  new RegExp(`^${pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`).test(name);

/** Whether the list lets somebody in; an empty list lets everybody. */
export const isAllowed = (allow: readonly string[], name: string): boolean =>
  allow.length === 0 || allow.some((pattern) => matches(pattern, name));

export function authHandlers(daemon: Daemon): RemoteHandlers {
  const { host, options, sessions } = daemon;
  const { crypto } = host;
  const first = (session: Session, users: ScramUsers, data: Uint8Array) => {
    const exchange = scramFirst(crypto, users, data);
    if (!exchange) throw failed();
    session.sasl = exchange;
    return answer(false, exchange.serverFirst);
  };
  const answer = (complete: boolean, text: string) => ({ complete, nil: false, data: encoder.encode(text) });
  const pending = (session: Session): void => {
    if (session.authentication !== 'sasl') throw libvirtError('authFailed', 'rpc', 'client tried invalid SASL init request');
  };
  return translateErrors('rpc', {
    authList(_, call) {
      return { types: [sessions.of(call).authentication === 'sasl' ? ('sasl' as const) : ('none' as const)] };
    },
    authSaslInit(_, call) {
      pending(sessions.of(call));
      return { mechanisms: SCRAM };
    },
    async authSaslStart({ mechanism, nil, data }, call) {
      const session = sessions.of(call);
      pending(session);
      if (mechanism !== SCRAM) throw failed();
      const users = parseUsers(options.usersFile === undefined ? '' : ((await host.files.read(options.usersFile)) ?? ''));
      if (nil) {
        session.sasl = { users };
        return answer(false, '');
      }
      return first(session, users, data);
    },
    authSaslStep({ data }, call) {
      const session = sessions.of(call);
      pending(session);
      const state = session.sasl as ScramExchange | { users: ScramUsers } | undefined;
      if (state === undefined) throw failed();
      if ('users' in state) return first(session, state.users, data);
      const done = scramLast(crypto, state, data);
      if (!done || !isAllowed(options.allow, done.name)) throw failed();
      session.user = done.name;
      session.authentication = 'done';
      return answer(true, done.signature);
    },
  } satisfies RemoteHandlers);
}
