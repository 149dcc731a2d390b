// Objects that say who may come in, by a name that is known already: `authz-simple`, one name, `authz-list`, rules, and `authz-list-file`, rules in a
// file. QEMU 7.2, qapi/authz.json;
// docs/system/authz.rst ("Client authorization").

import { QmpError } from '../rpc/qmp/error.ts';
import type { Json } from '../rpc/qmp/json.ts';
import { authzListFile } from './qom/objects.ts';

interface Objects {
  get(id: string): { readonly type: string; readonly values: { readonly [name: string]: Json } } | undefined;
}
interface Rule {
  readonly match: string;
  readonly policy: 'allow' | 'deny';
  readonly format?: 'exact' | 'glob';
}

/** Most steps that a pattern may take: names come from outside. */
const STEPS_MAX = 100_000;

/** Whether `text` is as a pattern with `*` and `?` has it. */
export function globMatches(pattern: string, text: string): boolean {
  const [p, t] = [[...pattern], [...text]];
  // After each star, the first place where the rest fits is as good as any.
  let [i, j, star, from] = [0, 0, -1, 0];
  for (let steps = 0; j < t.length; steps++) {
    if (steps > STEPS_MAX) return false;
    if (p[i] === '*') [star, from] = [i++, j];
    else if (i < p.length && (p[i] === '?' || p[i] === t[j])) [i, j] = [i + 1, j + 1];
    else if (star >= 0) [i, j] = [star + 1, ++from];
    else return false;
  }
  while (p[i] === '*') i++;
  return i === p.length;
}

/** Policy and rules of a list. */
interface List {
  readonly policy?: unknown;
  readonly rules?: unknown;
}

function allows(list: List, name: string): boolean {
  const rules = (list.rules ?? []) as readonly Rule[];
  const rule = rules.find(({ match, format }) => (format === 'glob' ? globMatches(match, name) : match === name));
  return (rule?.policy ?? list.policy ?? 'deny') === 'allow';
}

export interface AuthorizationOptions {
  readonly objects: Objects;
  /** A file of the host. Throws with one line. */
  readonly readText: (path: string) => string;
  readonly log: (text: string) => void;
}

/** Who may come in, as the objects say. */
export class Authorization {
  readonly #o: AuthorizationOptions;
  /** Lists of files that were read once (`refresh=off`), by object. */
  readonly #kept = new Map<string, List>();

  constructor(o: AuthorizationOptions) {
    this.#o = o;
  }

  /** An object is being made; what it returns ends it. @throws QmpError for a file that cannot be used */
  added(id: string, type: string, values: { readonly [name: string]: Json }): (() => void) | undefined {
    if (type !== 'authz-list-file') return undefined;
    const list = this.#read(String(values['filename']));
    if (values['refresh'] === false) this.#kept.set(id, list);
    return () => this.#kept.delete(id);
  }

  /**
   * Whether the object of that id lets a name in; one that is not there, or is none of these, lets nobody in. A file that may change is read for each
   * name; while it cannot be read, nobody comes in.
   */
  isAuthorized(id: string, name: string): boolean {
    const found = this.#o.objects.get(id);
    if (found?.type === 'authz-simple') return found.values['identity'] === name;
    if (found?.type === 'authz-list') return allows(found.values, name);
    if (found?.type !== 'authz-list-file') return false;
    try {
      return allows(this.#kept.get(id) ?? this.#read(String(found.values['filename'])), name);
    } catch (error) {
      this.#o.log((error as Error).message);
      return false;
    }
  }

  #read(path: string): List {
    try {
      return authzListFile.check(JSON.parse(this.#o.readText(path)) as Json, '');
    } catch (error) {
      throw new QmpError(`Cannot read the list of authorizations ${path}: ${(error as Error).message}`);
    }
  }
}
