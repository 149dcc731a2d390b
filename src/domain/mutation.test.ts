import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { commandLine } from './command-line/command-line.ts';
import { completeDomain } from './complete.ts';
import { formatDomain, parseDomain } from './domain.ts';
import { DomainXmlError } from './errors.ts';
import { prepareDomain } from './prepare.ts';
import { recordedContext, recordedEmulator } from './testing.ts';
import { elementsOf, formatXml, parseXml, type XmlElement } from './xml.ts';

const folder = new URL('golden/domains/', import.meta.url);
const seed = Number(process.env['SEED'] ?? 20230101);

/** Numbers from 0 up to `limit`, always the same for a seed (a linear congruential generator). */
function randomSource(start: number): (limit: number) => number {
  let state = start >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

const flatten = (tree: XmlElement): XmlElement[] => [tree, ...elementsOf(tree).flatMap(flatten)];
const oddities = ['', '0', '-1', '4294967296', '99999999999999999999', 'yes', 'none', 'pci', '0x1f', 'é', "'<&"];

/** Removes, doubles, moves or changes something somewhere in the tree. */
function mutate(tree: XmlElement, below: (limit: number) => number): void {
  const elements = flatten(tree);
  const victim = elements[below(elements.length)]!;
  const names = Object.keys(victim.attributes);
  const chosen = names[below(names.length)];
  switch (below(6)) {
    case 0:
      if (chosen !== undefined) delete victim.attributes[chosen];
      break;
    case 1:
      if (chosen !== undefined) victim.attributes[chosen] = oddities[below(oddities.length)]!;
      break;
    case 2:
      victim.nodes.splice(below(victim.nodes.length + 1), 1);
      break;
    case 3: {
      const other = elements[below(elements.length)]!;
      if (!flatten(other).includes(victim)) victim.nodes.push(other);
      break;
    }
    case 4:
      victim.nodes = [oddities[below(oddities.length)]!];
      break;
    default: {
      const parent = elements.find((one) => one.nodes.includes(victim));
      parent?.nodes.push(JSON.parse(JSON.stringify(victim)) as XmlElement);
    }
  }
}

test(`a damaged definition is refused with a libvirt error or understood, and nothing else (seed ${seed})`, () => {
  const below = randomSource(seed);
  const files = readdirSync(folder).filter((file) => file.endsWith('.xml'));
  let refused = 0;
  let accepted = 0;
  for (let round = 0; round < 600; round++) {
    const file = files[below(files.length)]!;
    const tree = parseXml(readFileSync(new URL(file, folder), 'utf8'));
    for (let count = 1 + below(3); count > 0; count--) mutate(tree, below);
    const text = formatXml(tree);
    try {
      const domain = completeDomain(parseDomain(text), recordedContext);
      const printed = formatDomain(domain, { secure: true });
      assert.equal(formatDomain(parseDomain(printed), { secure: true }), printed, `round ${round}, ${file}`);
      const context = {
        id: 1,
        channelDirectory: '/c',
        directory: '/d',
        listenAddress: '::1',
        freePort: () => 5901,
        nvramPath: '/n',
      };
      const prepared = prepareDomain(domain, context);
      const machine = recordedEmulator.machines[0]!;
      commandLine(prepared, { machine, monitorPath: '/m', passDescriptors: true, directory: '/d', now: 0 });
      accepted++;
    } catch (error) {
      if (!(error instanceof DomainXmlError)) throw new Error(`round ${round}, ${file}: ${text}`, { cause: error });
      refused++;
    }
  }
  assert.ok(refused > 50 && accepted > 50, `${refused} refused, ${accepted} accepted`);
});
