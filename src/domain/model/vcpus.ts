// `<vcpus>`: each vCPU of a domain by itself, enabled or not, from the command line or added (libvirt 9.0, formatdomain "CPU Allocation").
import { attribute, child, children, element, unsigned, yesNo } from '../codec.ts';
import { unsupported, xmlError } from '../errors.ts';

const vcpu = element('vcpu', {
  id: attribute('id', unsigned),
  enabled: attribute('enabled', yesNo),
  hotpluggable: attribute('hotpluggable', yesNo),
  /** Place among the enabled ones, from 1: in this order they are added. */
  order: attribute('order', unsigned),
});
export const vcpusField = child(element('vcpus', { vcpu: children(vcpu) }));

export interface VcpuState {
  readonly id: number;
  enabled: 'yes' | 'no';
  hotpluggable: 'yes' | 'no';
  order: number | undefined;
}
interface WithVcpus {
  vcpu: { count: number; current?: number | undefined };
  vcpus?: { vcpu: Partial<VcpuState>[] } | undefined;
}

/** All vCPUs of a domain, by their ids; those that it says nothing of are on as far as `current` goes, and from the command line. */
export function vcpuStates({ vcpu: { count, current = count }, vcpus }: WithVcpus): VcpuState[] {
  const given = new Map(vcpus?.vcpu.map((one) => [one.id, one]));
  return Array.from({ length: count }, (_, id) => {
    const one = given.get(id);
    const enabled = one?.enabled ?? (vcpus === undefined && id < current ? 'yes' : 'no');
    return { id, enabled, hotpluggable: one?.hotpluggable ?? (enabled === 'yes' ? 'no' : 'yes'), order: one?.order };
  });
}

/** Puts states back, with the number of those that are on. */
export function setVcpuStates(domain: WithVcpus, states: readonly VcpuState[]): void {
  const { count } = domain.vcpu;
  domain.vcpus = { vcpu: [...states] };
  const on = states.filter((one) => one.enabled === 'yes').length;
  if (on === count) delete domain.vcpu.current;
  else domain.vcpu.current = on;
}

/** Completes `<vcpus>` where a document has it. @throws {DomainXmlError} as libvirt does */
export function completeVcpus(domain: WithVcpus): void {
  if (!domain.vcpus) return;
  for (const { id } of domain.vcpus.vcpu) {
    if (id === undefined) throw xmlError("missing or invalid 'id' attribute of 'vcpu' element");
    if (id >= domain.vcpu.count) throw xmlError(`vcpu id '${id}' is out of range of maximum vcpu count`);
  }
  const states = vcpuStates(domain);
  if (states[0]?.enabled !== 'yes') throw unsupported("vcpu 0 can't be offline");
  if (states[0].hotpluggable === 'yes') throw unsupported("vcpu0 can't be hotpluggable");
  setVcpuStates(domain, states);
}

/** Those that are added to an emulator that has started, in their order. */
export const addedVcpus = (domain: WithVcpus): VcpuState[] =>
  vcpuStates(domain)
    .filter((one) => one.enabled === 'yes' && one.hotpluggable === 'yes')
    .sort((a, b) => (a.order ?? 1e9) - (b.order ?? 1e9) || a.id - b.id);

/** Numbers of a list such as `0-3,^2,7`, in order; undefined for what is none. */
export function parseVcpuSet(text: string): number[] | undefined {
  const ids = new Set<number>();
  for (const part of text.split(',')) {
    const [, not, first, last = first] = /^\s*(\^?)(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(part) ?? [];
    if (first === undefined || Number(last) < Number(first)) return undefined;
    for (let id = Number(first); id <= Number(last); id++)
      if (not === '^') ids.delete(id);
      else ids.add(id);
  }
  return [...ids].sort((a, b) => a - b);
}
