// Objects that say who may come in, by a name that is known already: `authz-simple`, one name, and `authz-list`, rules. QEMU 7.2, qapi/authz.json;
// docs/system/authz.rst ("Client authorization").

import type { Json } from '../rpc/qmp/json.ts';

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

/** Whether the object of that id lets a name in; one that is not there, or is none of these, lets nobody in. */
export function isAuthorized(objects: Objects, id: string, name: string): boolean {
  const found = objects.get(id);
  if (found?.type === 'authz-simple') return found.values['identity'] === name;
  if (found?.type !== 'authz-list') return false;
  const rules = (found.values['rules'] ?? []) as unknown as readonly Rule[];
  const rule = rules.find(({ match, format }) => (format === 'glob' ? globMatches(match, name) : match === name));
  return (rule?.policy ?? found.values['policy'] ?? 'deny') === 'allow';
}
