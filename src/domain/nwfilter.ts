// `<filter>` of network traffic (libvirt 9.0, formatnwfilter).
import { attribute, child, children, element, type Field, integer, leaf, refine, required, string, type Value } from './codec.ts';
import { uuidField } from './domain.ts';
import { type DefineContext, randomUuid } from './emulator.ts';
import { internalError, unsupported } from './errors.ts';
import { elementsOf, formatXml, newElement, parseRoot, type XmlElement } from './xml.ts';

/** One rule; its matches are kept as they were written. */
export interface FilterRule {
  kind: 'rule';
  action: string;
  direction: string;
  /** −1000 to 1000, 500 when not given. */
  priority: number;
  statematch?: string;
  matches: XmlElement[];
}
export interface FilterReference {
  kind: 'filterref';
  element: XmlElement;
}
export type FilterEntry = FilterRule | FilterReference;

function parseRule(tree: XmlElement): FilterRule {
  const { action, direction, priority, statematch } = tree.attributes;
  if (action === undefined) throw internalError('rule node requires action attribute');
  if (!['drop', 'accept', 'reject', 'return', 'continue'].includes(action))
    throw unsupported('unknown rule action attribute value');
  if (direction === undefined) throw internalError('rule node requires direction attribute');
  if (!['in', 'out', 'inout'].includes(direction)) throw unsupported('unknown rule direction attribute value');
  const number = Number(priority ?? 500);
  const valid = Number.isInteger(number) && number >= -1000 && number <= 1000;
  return {
    kind: 'rule',
    action,
    direction,
    priority: valid ? number : 500,
    ...(statematch !== undefined && { statematch }),
    matches: elementsOf(tree),
  };
}

function formatEntry(entry: FilterEntry): XmlElement {
  if (entry.kind === 'filterref') return entry.element;
  const { action, direction, priority, statematch } = entry;
  const attributes = { action, direction, priority: String(priority), ...(statematch !== undefined && { statematch }) };
  return newElement('rule', attributes, entry.matches);
}

/** Rules and references in the order of the document, which is their order of application within a priority. */
const entries: Field<FilterEntry[]> = {
  take(source) {
    const found: FilterEntry[] = [];
    for (const tree of source.children) {
      if (tree.name === 'rule') found.push(parseRule(tree));
      else if (tree.name === 'filterref') found.push({ kind: 'filterref', element: tree });
    }
    source.children = source.children.filter((tree) => tree.name !== 'rule' && tree.name !== 'filterref');
    return found;
  },
  put: (value, out) => void out.nodes.push(...value.map(formatEntry)),
};

/** The priorities of the chains that libvirt has, by the start of their names. */
const chainPriorities: Readonly<Record<string, number>> = {
  ...{ stp: -810, mac: -800, vlan: -750, ipv4: -700, ipv6: -600, arp: -500, rarp: -400 },
};

const root = refine(
  element('filter', {
    name: required('name', string, { missing: () => internalError('filter has no name') }),
    chain: attribute('chain', string),
    priority: attribute('priority', integer),
    uuid: uuidField,
    entries,
  }),
  (value) => {
    value.chain ??= 'root';
    const known = chainPriorities[value.chain.split('-')[0]!];
    if (known !== undefined) value.priority ??= known;
    return value;
  },
);
export type Nwfilter = Value<typeof root>;

/** @throws DomainXmlError with libvirt's code and message. */
export const parseNwfilter = (text: string): Nwfilter => root.parse(parseRoot(text, 'filter', 'nwfilter_definition'));

/** Gives the filter a UUID when it has none, in place. */
export function completeNwfilter(filter: Nwfilter, random: DefineContext['random']): Nwfilter {
  filter.uuid ??= randomUuid(random);
  return filter;
}

/** The filter's XML text as libvirt prints it. */
export const formatNwfilter = (filter: Nwfilter): string => formatXml(root.format(filter));

const bindingRoot = element('filterbinding', {
  owner: child(element('owner', { name: leaf('name', string), uuid: uuidField })),
  portdev: child(element('portdev', { name: attribute('name', string) })),
  linkdev: child(element('linkdev', { name: attribute('name', string) })),
  mac: child(element('mac', { address: attribute('address', string) })),
  filterref: child(
    element('filterref', {
      filter: attribute('filter', string),
      parameters: children(element('parameter', { name: required('name', string), value: required('value', string) })),
    }),
  ),
});
type BindingDocument = Value<typeof bindingRoot>;
/** A filter that a network device of the host is bound to, for one card of a guest. */
export interface FilterBinding extends BindingDocument {
  portdev: { name: string };
  mac: { address: string };
  filterref: NonNullable<BindingDocument['filterref']> & { filter: string };
}

/** @throws DomainXmlError with libvirt's code and message. */
export function parseFilterBinding(text: string): FilterBinding {
  const value = bindingRoot.parse(parseRoot(text, 'filterbinding', 'nwfilterbinding_definition'));
  if (value.portdev?.name === undefined) throw internalError('filter binding has no port dev name');
  if (value.mac?.address === undefined) throw internalError('filter binding has no MAC address');
  if (value.filterref?.filter === undefined) throw internalError('filter binding has no filter reference');
  if (value.owner?.name === undefined) throw internalError('filter binding has no owner name');
  if (value.owner.uuid === undefined) throw internalError('filter binding has no owner UUID');
  return value as FilterBinding;
}

/** The binding's XML text as libvirt prints it. */
export const formatFilterBinding = (binding: FilterBinding): string => formatXml(bindingRoot.format(binding));
