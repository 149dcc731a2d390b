// Where a guest's packet may go: to the host's loopback, to a resolver, to the host's network, or nowhere. QEMU 7.2 system manual, `restrict=`.
import { type Address, type Family, inPrefix, isForwardable, sameAddress } from './address.ts';
import type { Subnet, UserNetOptions } from './user-options.ts';

/** `loopback`: the host itself; `dns`: its resolvers; `outside`: what the host can reach; `none`: nothing there, or not allowed. */
export type Route = 'loopback' | 'dns' | 'outside' | 'none';

export const subnetOf = (o: UserNetOptions, family: Family): Subnet | undefined => (family === 4 ? o.ipv4 : o.ipv6);

export function routeTo(o: UserNetOptions, dst: Address): Route {
  const net = subnetOf(o, dst.length === 4 ? 4 : 6);
  if (net === undefined || o.restrict) return 'none';
  if (sameAddress(dst, net.host)) return 'loopback';
  if (sameAddress(dst, net.dns)) return 'dns';
  if (inPrefix(dst, net.network, net.prefix) || !isForwardable(dst)) return 'none';
  return 'outside';
}

export const loopbackOf = (family: Family): string => (family === 4 ? '127.0.0.1' : '::1');
