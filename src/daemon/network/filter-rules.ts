// The rules of a card's filters as a table of nftables on the bridge's side of its tap. libvirt 9.0 formatnwfilter: chains, priorities, variables.
// Frames of the guest are looked at as they enter the bridge, frames to it as they leave.
import type { FilterBinding, FilterRule, Nwfilter } from '../../domain/nwfilter.ts';
import { elementsOf, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { matchOf } from './filter-match.ts';

/** How deep filters may refer to filters, and how many references there may be in all. */
const depthMax = 32;
const referencesMax = 1024;
/** Rules that one rule with lists of values may become. */
const rulesMax = 4096;
/** The set of the address that the guest is seen to have, where it is not given. */
const learned = '@learned';

type Variables = ReadonlyMap<string, readonly string[]>;
type Direction = 'in' | 'out';

interface Item {
  readonly priority: number;
  /** In each direction, what nft is told. */
  readonly out: readonly string[];
  readonly in: readonly string[];
}
interface Chain {
  readonly name: string;
  readonly priority: number;
  readonly items: Item[];
}

/** nft's name of a table for a network device, whose name may have other characters. */
export const tableOf = (device: string): string =>
  `nonroot_fw_${/^\w+$/.test(device) ? device : [...new TextEncoder().encode(device)].map((b) => b.toString(16)).join('')}`;

const failed = (text: string): Error => libvirtError('internalError', 'nwfilter', text);

function variablesOf(parameters: readonly { readonly name: string; readonly value: string }[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { name, value } of parameters) found.set(name, [...(found.get(name) ?? []), value]);
  return found;
}

const reference = /^\$(\w+)(?:\[(@?)(\d+)\])?$/;

/** The variables that a match names, with the iterator of each: those of one iterator go in step, others through all combinations. */
function* valuesOf(match: XmlElement | undefined, variables: Variables): Generator<(value: string) => string> {
  const iterators = new Map<string, { name: string; length: number }[]>();
  const fixed = new Map<string, string>();
  for (const value of Object.values(match?.attributes ?? {})) {
    const [, name, at, number] = reference.exec(value) ?? [];
    if (name === undefined) continue;
    const list = variables.get(name) ?? [];
    const unresolvable = failed(
      `Cannot instantiate filter due to unresolvable variables or unavailable list elements: ${value.slice(1)}`,
    );
    if (list.length === 0) throw unresolvable;
    if (number !== undefined && at === '') {
      if (list[Number(number)] === undefined) throw unresolvable;
      fixed.set(value, list[Number(number)]!);
    } else {
      const key = number === undefined ? name : `@${number}`;
      iterators.set(key, [...(iterators.get(key) ?? []), { name, length: list.length }]);
    }
  }
  const lengths = [...iterators.values()].map((of) => Math.max(...of.map(({ length }) => length)));
  const count = lengths.reduce((product, length) => product * length, 1);
  if (count > rulesMax) throw failed(`a rule with ${count} combinations of values: accepted are ${rulesMax}`);
  for (let n = 0; n < count; n++) {
    const at = new Map<string, number>();
    let rest = n;
    [...iterators.keys()].forEach((key, i) => {
      at.set(key, rest % lengths[i]!);
      rest = Math.floor(rest / lengths[i]!);
    });
    yield (value) => {
      const [, name, , number] = reference.exec(value) ?? [];
      if (name === undefined) return value;
      const list = variables.get(name)!;
      const one = fixed.get(value) ?? list[at.get(number === undefined ? name : `@${number}`)!];
      if (one === undefined) throw failed(`variable ${name} has fewer values than others of its iterator`);
      return one;
    };
  }
}

const verdicts = { accept: 'accept', drop: 'drop', reject: 'drop', return: 'return', continue: 'continue' } as const;
const both = (direction: string): readonly Direction[] =>
  direction === 'inout' ? ['out', 'in'] : direction === 'in' ? ['in'] : ['out'];

/** What a rule looks like from the other side: answers to what it lets out come in. */
const mirrored = (text: string): string =>
  text.replace(/\b(saddr|daddr|sport|dport)\b/g, (word) => (word.startsWith('s') ? `d${word.slice(1)}` : `s${word.slice(1)}`));

/** Lines of one rule for what Ethernet, ARP and addresses say, and for what has connections. */
function linesOf(rule: FilterRule, variables: Variables) {
  const plain: Record<Direction, string[]> = { in: [], out: [] };
  const tracked: Record<Direction, string[]> = { in: [], out: [] };
  const verdict = verdicts[rule.action as keyof typeof verdicts];
  const matches = rule.matches.length === 0 ? [undefined] : rule.matches;
  for (const match of matches)
    for (const resolve of valuesOf(match, variables)) {
      const found = match ? matchOf(match, resolve) : { text: '', tracked: false };
      for (const direction of both(rule.direction)) {
        if (!found.tracked) {
          plain[direction].push(`${found.text} ${verdict}`.trim());
          continue;
        }
        const stateful = rule.statematch !== 'false' && rule.statematch !== '0' && !found.text.includes('ct state');
        const accepts = verdict === 'accept' && stateful && rule.direction !== 'inout';
        tracked[direction].push(`${found.text}${accepts ? ' ct state new,established' : ''} ${verdict}`);
        if (accepts)
          tracked[direction === 'in' ? 'out' : 'in'].push(
            `${mirrored(found.text.replace(/^ether [sd]addr \S+ /, ''))} ct state established accept`,
          );
      }
    }
  return { plain, tracked };
}

/** Which frames a chain of libvirt's is for, by the start of its name. */
const chainMatch: Readonly<Record<string, string>> = {
  mac: '',
  stp: 'ether daddr 01:80:c2:00:00:00 ',
  vlan: 'ether type vlan ',
  arp: 'ether type arp ',
  rarp: 'ether type 0x8035 ',
  ipv4: 'ether type ip ',
  ipv6: 'ether type ip6 ',
};

class Collector {
  readonly chains = new Map<string, Chain>();
  readonly tracked: Item[] = [];
  readonly #find: (name: string) => Nwfilter | undefined;
  #references = 0;

  constructor(find: (name: string) => Nwfilter | undefined) {
    this.#find = find;
  }
  #chain(filter: Nwfilter): Chain {
    const name = filter.chain ?? 'root';
    const known = this.chains.get(name);
    if (known) return known;
    const made = { name, priority: filter.priority ?? 0, items: [] };
    this.chains.set(name, made);
    return made;
  }
  add(name: string, variables: Map<string, string[]>, depth = 0): void {
    const filter = this.#find(name);
    if (!filter) throw failed(`referenced filter '${name}' is missing`);
    if (depth > depthMax || ++this.#references > referencesMax)
      throw failed(
        `filter '${name}': filters refer to each other too often: accepted are ${depthMax} deep, ${referencesMax} in all`,
      );
    const chain = this.#chain(filter);
    for (const entry of filter.entries) {
      if (entry.kind === 'filterref') {
        const { element } = entry;
        const own = variablesOf(
          elementsOf(element)
            .filter((child) => child.name === 'parameter')
            .map(({ attributes }) => ({ name: attributes['name'] ?? '', value: attributes['value'] ?? '' })),
        );
        this.add(element.attributes['filter'] ?? '', new Map([...variables, ...own]), depth + 1);
        continue;
      }
      const { plain, tracked } = linesOf(entry, variables);
      if (plain.in.length + plain.out.length > 0) chain.items.push({ priority: entry.priority, ...plain });
      if (tracked.in.length + tracked.out.length > 0) this.tracked.push({ priority: entry.priority, ...tracked });
    }
  }
}

/** What keeps the first address that the card uses: the set holds one. */
const learn = (mac: string): string[] =>
  ['ip saddr', 'arp saddr ip'].map((address) => `ether saddr ${mac} ${address} != 0.0.0.0 add @learned { ${address} }`);

/** The table of a binding, to be read by `nft -f`: it takes the place of the one before at once. @throws {LibvirtError} for what cannot be realised */
export function filterTable(binding: FilterBinding, find: (name: string) => Nwfilter | undefined): string {
  const device = binding.portdev.name;
  const given = variablesOf(binding.filterref.parameters ?? []);
  const mode = given.get('CTRL_IP_LEARNING')?.[0] ?? 'any';
  if (!['any', 'none'].includes(mode))
    throw libvirtError('configUnsupported', 'nwfilter', `CTRL_IP_LEARNING='${mode}': accepted are any and none`);
  const learns = !given.has('IP') && mode === 'any';
  const variables = new Map([['MAC', [binding.mac.address]], ...given]);
  if (learns) variables.set('IP', [learned]);
  const collector = new Collector(find);
  collector.add(binding.filterref.filter, variables);
  const root = collector.chains.get('root') ?? { name: 'root', priority: 0, items: [] };
  const others = [...collector.chains.values()].filter((chain) => chain !== root);
  const lines: string[] = [];
  const chainName = (name: string): string => name.replace(/\W/g, '_');
  const sorted = (items: readonly Item[]): Item[] => [...items].sort((a, b) => a.priority - b.priority);
  for (const { name, items } of others)
    for (const way of ['out', 'in'] as const) {
      lines.push(`chain ${way}_${chainName(name)} {`, ...sorted(items).flatMap((item) => item[way]), '}');
    }
  const jumps = others.map(({ name, priority, items }): Item => {
    const to = (way: Direction): string[] =>
      items.some((item) => item[way].length > 0)
        ? [`${chainMatch[name.split('-')[0]!] ?? ''}jump ${way}_${chainName(name)}`]
        : [];
    return { priority, out: to('out'), in: to('in') };
  });
  const text = JSON.stringify(device);
  const base = (name: string, hook: string, way: Direction, items: readonly Item[], before: readonly string[] = []): void => {
    const rules = sorted(items).flatMap((item) => item[way]);
    if (rules.length === 0) return;
    const whose = way === 'out' ? 'iifname' : 'oifname';
    lines.push(
      `chain ${name} {`,
      `type filter hook ${hook}; policy accept;`,
      `${whose} != ${text} accept`,
      ...before,
      ...rules,
      '}',
    );
  };
  const whole = [...jumps, ...root.items];
  const uses = [...whole, ...others.flatMap(({ items }) => items), ...collector.tracked].some((item) =>
    [...item.in, ...item.out].some((line) => line.includes(learned)),
  );
  base('out', 'prerouting priority -300', 'out', whole, uses ? learn(binding.mac.address) : []);
  base('in', 'postrouting priority 300', 'in', whole);
  base('out_tracked', 'prerouting priority -150', 'out', collector.tracked);
  base('in_tracked', 'forward priority 0', 'in', collector.tracked);
  const table = tableOf(device);
  const set = uses ? ['set learned {', 'type ipv4_addr; size 1; flags dynamic;', '}'] : [];
  return `${[`add table bridge ${table}`, `delete table bridge ${table}`, `table bridge ${table} {`, ...set, ...lines, '}'].join('\n')}\n`;
}
