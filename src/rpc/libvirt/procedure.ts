// Rows of a program's tables: procedures that a client calls and messages that a server sends. libvirt "RPC protocol", 9.0.
import type { Codec } from '../xdr.ts';

/** `from`: the stream brings data from the server (it may take some as well); `to`: the client sends it. */
export type StreamKind = 'from' | 'to';
/** Which packet may bring file descriptors. */
export type FdKind = 'call' | 'reply';

export interface Procedure<A = unknown, R = unknown> {
  readonly number: number;
  readonly args: Codec<A>;
  readonly ret: Codec<R>;
  /** The call opens a stream, which goes on under the call's serial. */
  readonly stream: StreamKind | undefined;
  readonly fds: FdKind | undefined;
}
/** A row of procedures: `proc(33, struct({ dom: domain }), nothing)`. */
export const proc = <A, R>(
  number: number,
  args: Codec<A>,
  ret: Codec<R>,
  also: { readonly stream?: StreamKind; readonly fds?: FdKind } = {},
): Procedure<A, R> => ({ number, args, ret, stream: also.stream, fds: also.fds });

export interface Message<M = unknown> {
  readonly number: number;
  readonly body: Codec<M>;
}
/** A row of messages. */
export const message = <M>(number: number, body: Codec<M>): Message<M> => ({ number, body });

export type Procedures = Readonly<Record<string, Procedure>>;
export type Messages = Readonly<Record<string, Message>>;
export type ArgsOf<P> = P extends Procedure<infer A, infer _> ? A : never;
export type RetOf<P> = P extends Procedure<infer _, infer R> ? R : never;
export type BodyOf<M> = M extends Message<infer B> ? B : never;

export interface Program<P extends Procedures = Procedures, M extends Messages = Messages> {
  readonly name: string;
  readonly number: number;
  readonly version: number;
  readonly procedures: P;
  readonly messages: M;
  /** Rows by number, with their names. */
  readonly procedureOf: ReadonlyMap<number, { readonly name: string; readonly row: Procedure }>;
  readonly messageOf: ReadonlyMap<number, { readonly name: string; readonly row: Message }>;
}

/** @throws {Error} when two rows have one number. */
export function program<const P extends Procedures, const M extends Messages>(
  name: string,
  number: number,
  version: number,
  procedures: P,
  messages: M,
): Program<P, M> {
  const index = <R extends { readonly number: number }>(rows: Readonly<Record<string, R>>) => {
    const byNumber = new Map<number, { name: string; row: R }>();
    for (const [row, value] of Object.entries(rows)) {
      const other = byNumber.get(value.number);
      if (other !== undefined)
        throw new Error(`Cannot build program ${name}: ${row} and ${other.name} both have number ${value.number}`);
      byNumber.set(value.number, { name: row, row: value });
    }
    return byNumber;
  };
  return { name, number, version, procedures, messages, procedureOf: index(procedures), messageOf: index(messages) };
}
