// The objects that users have made, by id. QEMU 7.2 "QEMU QMP Reference Manual", object-add and object-del.

import { QmpError } from '../../rpc/qmp/error.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import { objectOptions } from './objects.ts';

export interface UserObject {
  readonly id: string;
  readonly type: string;
  readonly values: { readonly [name: string]: Json };
  /** What it has started, and is ended with it. */
  close?: () => void;
}

/** Ids as QEMU takes them (util/id.c in words): a letter, then letters, digits, `-`, `.`, `_`. */
export const validId = (id: string): boolean => /^[A-Za-z][\w.-]*$/.test(id);

export class Objects {
  readonly #all = new Map<string, UserObject>();
  /** Hears of every object before it counts as made; may throw, and may return how to end it. */
  onAdd: (object: UserObject) => (() => void) | undefined = () => undefined;

  /** @throws QmpError */
  add(given: { readonly [name: string]: Json }): UserObject {
    const { id, 'qom-type': type, ...values } = objectOptions.check(given, '') as { id: string; 'qom-type': string };
    if (!validId(id)) throw new QmpError("Parameter 'id' expects an identifier");
    if (this.#all.has(id)) throw new QmpError(`attempt to add duplicate property '${id}' to object (type 'container')`);
    const object: UserObject = { id, type, values: values as { readonly [name: string]: Json } };
    const close = this.onAdd(object);
    if (close) object.close = close;
    this.#all.set(id, object);
    return object;
  }
  /** @throws QmpError */
  remove(id: string): void {
    const found = this.#all.get(id);
    if (!found) throw new QmpError(`object '${id}' not found`);
    found.close?.();
    this.#all.delete(id);
  }
  /** Changes a value of an object. */
  set(id: string, name: string, value: Json): void {
    const found = this.#all.get(id);
    if (found) this.#all.set(id, { ...found, values: { ...found.values, [name]: value } });
  }
  get(id: string): UserObject | undefined {
    return this.#all.get(id);
  }
  list(type?: string): readonly UserObject[] {
    return [...this.#all.values()].filter((o) => type === undefined || o.type === type);
  }
}
