// QMP commands that walk the tree of objects, and those that make objects. QEMU 7.2, qapi/qom.json.

import { QmpError } from '../../rpc/qmp/error.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import { any, array, object, optional, str } from '../../rpc/qmp/schema.ts';
import { objectOptions } from '../qom/objects.ts';
import { action, type QmpTable, query, unionAction } from './row.ts';

const propertyInfo = object('ObjectPropertyInfo', { name: str, type: str, description: optional(str) });

export const qomCommands: QmpTable = {
  'qom-list': query({ path: str }, array(propertyInfo), (e, { path }) => {
    const at = e.tree.find(path);
    return [
      ...at.properties.map(({ name, type }) => ({ name, type })),
      ...[...at.children].map(([name, child]) => ({ name, type: `child<${child.type}>` })),
    ];
  }),
  'qom-get': query({ path: str, property: str }, any, (e, { path, property }) => {
    const child = e.tree.find(path).children.get(property);
    if (child) return `${path.replace(/\/$/, '')}/${property}`;
    return e.tree.property(path, property).get();
  }),
  'qom-set': action({ path: str, property: str, value: any }, (e, { path, property, value }) => {
    const found = e.tree.property(path, property);
    if (!found.set) throw new QmpError(`Property '${e.tree.find(path).type}.${property}' is not writable`);
    return found.set(value);
  }),
  'object-add': unionAction(objectOptions, (e, args) => void e.objects.add(args as unknown as { readonly [name: string]: Json })),
  'object-del': action({ id: str }, (e, { id }) => e.objects.remove(id)),
};
