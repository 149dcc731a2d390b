// QMP commands that tell what this emulator can do: machines, CPU models, types and options, all from our own tables.
// QEMU 7.2, qapi/machine.json, qapi/machine-target.json, qapi/qom.json, qapi/misc.json, qapi/tpm.json.

import { cpuFeatures, cpuModel, cpuModels } from '../../isa/x86/cpu-model.ts';
import { machineTypes } from '../../machine/machine-types.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import { any, array, bool, enumeration, int, object, optional, str } from '../../rpc/qmp/schema.ts';
import { CPU_SUFFIX } from '../qom/types.ts';
import { type QmpTable, query } from './row.ts';

const machineInfo = object('MachineInfo', {
  name: str,
  alias: optional(str),
  'is-default': optional(bool),
  'cpu-max': int,
  'hotpluggable-cpus': bool,
  'numa-mem-supported': bool,
  deprecated: bool,
  'default-cpu-type': optional(str),
  'default-ram-id': optional(str),
});
const cpuDefinition = object('CpuDefinitionInfo', {
  name: str,
  'migration-safe': optional(bool),
  static: bool,
  'unavailable-features': optional(array(str)),
  typename: str,
  'alias-of': optional(str),
  deprecated: bool,
});
const modelInfo = object('CpuModelInfo', { name: str, props: optional(any) });
const propertyInfo = object('ObjectPropertyInfo', {
  name: str,
  type: str,
  description: optional(str),
  'default-value': optional(any),
});
const optionInfo = object('CommandLineOptionInfo', {
  option: str,
  parameters: array(
    object('CommandLineParameterInfo', {
      name: str,
      type: enumeration('CommandLineParameterType', ['string', 'boolean', 'number', 'size']),
      help: optional(str),
      default: optional(str),
    }),
  ),
});

const properties = (
  all: readonly { name: string; type: string; description?: string | undefined; 'default-value'?: unknown }[],
) =>
  all.map(({ name, type, description, 'default-value': otherwise }) => ({
    name,
    type,
    ...(description === undefined ? {} : { description }),
    ...(otherwise === undefined ? {} : { 'default-value': otherwise as Json }),
  }));

/** A model with what the user changes, as all its features. */
function expand(model: { readonly name: string; readonly props?: Json | undefined }, type: 'static' | 'full') {
  const name = model.name === 'host' ? 'max' : model.name;
  if (!cpuModels.includes(name) && name !== 'base') throw new QmpError(`CPU definition '${model.name}' not found`);
  const known = new Set(['family', 'model', 'stepping', 'model-id', 'vendor', 'migratable']);
  const changes: string[] = [];
  for (const [feature, on] of Object.entries(isObject(model.props) ? model.props : {})) {
    if (known.has(feature) || feature.startsWith('hv-')) continue;
    if (!cpuFeatures.includes(feature)) throw new QmpError(`Property '${name}${CPU_SUFFIX}.${feature}' not found`);
    changes.push(`${on === true ? '+' : '-'}${feature}`);
  }
  // The base has no features of its own: what an expansion has named is all that there is.
  const none = name === 'base' ? cpuFeatures.map((f) => `-${f}`) : [];
  const { features, ...made } = cpuModel(name === 'base' ? 'max' : name, [...none, ...changes]);
  const props: Record<string, Json> = {
    family: made.family,
    model: made.model,
    stepping: made.stepping,
    'model-id': made.brand,
    vendor: made.vendor,
  };
  for (const feature of cpuFeatures) props[feature] = features.has(feature);
  return { model: { name: type === 'static' ? 'base' : model.name, props } };
}

export const introspectCommands: QmpTable = {
  'query-machines': query({}, array(machineInfo), () =>
    machineTypes.map((m) => ({
      name: m.name,
      ...(m.alias === undefined ? {} : { alias: m.alias }),
      ...(m.isDefault ? { 'is-default': true } : {}),
      'cpu-max': m.maxCpus,
      'hotpluggable-cpus': m.hotpluggableCpus,
      'numa-mem-supported': false,
      deprecated: false,
      ...(m.defaultCpu === undefined ? {} : { 'default-cpu-type': `${m.defaultCpu}${CPU_SUFFIX}` }),
      ...(m.ramId === undefined ? {} : { 'default-ram-id': m.ramId }),
    })),
  ),
  'query-cpu-definitions': query({}, array(cpuDefinition), () =>
    cpuModels.map((name) => ({
      name,
      'migration-safe': name !== 'max',
      static: false,
      'unavailable-features': [...cpuModel(name).missing],
      typename: `${name}${CPU_SUFFIX}`,
      deprecated: false,
    })),
  ),
  'query-cpu-model-expansion': query(
    { type: enumeration('CpuModelExpansionType', ['static', 'full']), model: modelInfo },
    object('CpuModelExpansionInfo', { model: modelInfo }),
    (_, { type, model }) => expand(model, type),
  ),
  'qom-list-types': query(
    { implements: optional(str), abstract: optional(bool) },
    array(object('ObjectTypeInfo', { name: str, abstract: optional(bool), parent: optional(str) })),
    ({ types }, { implements: ancestor, abstract }) =>
      types
        .list()
        .filter((t) => (ancestor === undefined || types.is(t.name, ancestor)) && (abstract === true || !t.abstract))
        .map((t) => ({
          name: t.name,
          ...(t.abstract ? { abstract: true } : {}),
          ...(t.parent === undefined ? {} : { parent: t.parent }),
        })),
  ),
  'qom-list-properties': query({ typename: str }, array(propertyInfo), ({ types }, { typename }) => {
    if (!types.find(typename)) throw new QmpError(`Class '${typename}' not found`, 'DeviceNotFound');
    return properties(types.properties(typename));
  }),
  'device-list-properties': query({ typename: str }, array(propertyInfo), ({ types }, { typename }) => {
    const type = types.find(typename);
    if (!type) throw new QmpError(`Device '${typename}' not found`, 'DeviceNotFound');
    if (!types.isDevice(typename)) throw new QmpError("Parameter 'typename' expects a device type");
    const own = new Set(types.properties('device').map((p) => p.name));
    return properties(types.properties(typename).filter((p) => !own.has(p.name)));
  }),
  'query-command-line-options': query({ option: optional(str) }, array(optionInfo), ({ config }, { option }) => {
    const all = config.options.filter((o) => option === undefined || o.option === option);
    if (option !== undefined && all.length === 0) throw new QmpError('invalid option name');
    return all;
  }),
  'query-tpm-models': query({}, array(str), () => []),
  'query-tpm-types': query({}, array(str), () => []),
  'query-tpm': query({}, array(any), () => []),
  'query-gic-capabilities': query({}, array(any), () => []),
};
