// Tables of QMP commands and events, from which typed clients, dispatch and query-qmp-schema follow.
// QEMU qapi/introspect.json (QEMU 7.2).
import type { Json } from './json.ts';
import { type Describe, type Members, type MembersValue, type ObjectSchema, object, type Schema } from './schema.ts';

export interface Command<M extends Members = Members, R = unknown> {
  readonly args: ObjectSchema<M>;
  /** What the command returns, before it is JSON. */
  readonly ret: Schema<R>;
  /** May run before earlier commands are done. */
  readonly oob: boolean;
  /** Arguments beyond the described ones are the handler's matter, as with `device_add`. */
  readonly open: boolean;
  readonly features: readonly string[];
}
export type Commands = Readonly<Record<string, Command>>;
export type CommandArgs<C> = C extends Command<infer M, infer _> ? MembersValue<M> : never;
export type CommandRet<C> = C extends Command<infer _, infer R> ? R : never;

export const emptyObject = object('Empty', {});

/** A row: `balloon: command({ value: int })`, `'query-status': command({}, statusInfo)`. */
export const command = <const M extends Members, R = MembersValue<Record<never, never>>>(
  args: M,
  ret?: Schema<R>,
  also: { readonly oob?: boolean; readonly open?: boolean; readonly features?: readonly string[] } = {},
): Command<M, R> => ({
  args: object('arguments', args),
  ret: ret ?? (emptyObject as unknown as Schema<R>),
  oob: also.oob ?? false,
  open: also.open ?? false,
  features: also.features ?? [],
});

/** Events and the members of their data: `RESET: object('', { guest: bool })`. */
export type Events = Readonly<Record<string, ObjectSchema<Members>>>;
export type EventData<E> = E extends ObjectSchema<infer M> ? MembersValue<M> : never;

/** The answer to query-qmp-schema. Types have numbers for names, as QEMU hides its own. */
export function introspect(commands: Commands, events: Events): Json[] {
  const infos: Json[] = [];
  const names = new Map<object, string>();
  const known = new Set<string>();
  /** A type whose name says what it is. */
  const once = (name: string, info: { readonly [name: string]: Json }): string => {
    if (!known.has(name)) infos.push({ name, ...info });
    known.add(name);
    return name;
  };
  const d: Describe = {
    type(key, info) {
      let name = names.get(key);
      if (name === undefined) {
        name = `${names.size}`;
        // The name is known before the description, which may contain it.
        names.set(key, name);
        infos.push({ name, ...info() });
      }
      return name;
    },
    array: (element) => once(`[${element}]`, { 'meta-type': 'array', 'element-type': element }),
    builtin: (name, jsonType) => once(name, { 'meta-type': 'builtin', 'json-type': jsonType }),
  };
  for (const [name, row] of Object.entries(commands)) {
    infos.push({
      name,
      'meta-type': 'command',
      'arg-type': row.args.describe(d),
      'ret-type': row.ret.describe(d),
      ...(row.oob ? { 'allow-oob': true } : {}),
      ...(row.features.length > 0 ? { features: row.features } : {}),
    });
  }
  for (const [name, data] of Object.entries(events)) infos.push({ name, 'meta-type': 'event', 'arg-type': data.describe(d) });
  return infos;
}
