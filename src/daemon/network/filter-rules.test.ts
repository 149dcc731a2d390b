// Filters as nftables: what libvirt's documents come to. What the kernel does with them, test/virsh/bridge.test.ts looks at.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FilterBinding, parseFilterBinding, parseNwfilter } from '../../domain/nwfilter.ts';
import { filterTable } from './filter-rules.ts';

const binding = (filter: string, parameters = ''): FilterBinding =>
  parseFilterBinding(
    `<filterbinding><owner><name>g</name><uuid>55555555-0000-4000-8000-000000000001</uuid></owner><portdev name='vnet0'/>
     <mac address='52:54:00:11:22:33'/><filterref filter='${filter}'>${parameters}</filterref></filterbinding>`,
  );
const table = (documents: readonly string[], parameters = ''): string => {
  const filters = documents.map(parseNwfilter);
  return filterTable(binding(filters[0]!.name, parameters), (name) => filters.find((one) => one.name === name));
};
/** The rules of a chain. */
const chain = (text: string, name: string): string[] =>
  new RegExp(`chain ${name} \\{\\n([^}]*(?:\\{[^}]*\\}[^}]*)*?)\\n\\}`).exec(text)?.[1]?.split('\n') ?? [];

test('rules and chains of other filters come in the order of their priorities', () => {
  const text = table([
    `<filter name='top'><rule action='accept' direction='inout' priority='-500'><mac protocolid='arp'/></rule>
      <filterref filter='mac'/><filterref filter='arp'/><rule action='drop' direction='inout' priority='1000'/></filter>`,
    `<filter name='mac' chain='mac'><rule action='return' direction='out'><mac srcmacaddr='$MAC'/></rule><rule action='drop' direction='out'><mac/></rule></filter>`,
    `<filter name='arp' chain='arp-ip' priority='-510'><rule action='return' direction='out' priority='400'><arp arpsrcipaddr='10.0.0.1'/></rule>
      <rule action='drop' direction='out' priority='1000'/></filter>`,
  ]);
  assert.deepEqual(chain(text, 'out').slice(2), [
    'jump out_mac',
    'ether type arp jump out_arp_ip',
    'ether type 0x0806 accept',
    'drop',
  ]);
  assert.deepEqual(chain(text, 'out_mac'), ['ether saddr 52:54:00:11:22:33 return', 'drop']);
  assert.deepEqual(chain(text, 'out_arp_ip'), ['ether type arp @nh,112,32 == 0xa000001 return', 'drop']);
  assert.deepEqual(chain(text, 'in').slice(2), ['ether type 0x0806 accept', 'drop']);
});

test('a variable with several values makes a rule of each, and one without is named', () => {
  const parameters = `<parameter name='IP' value='10.0.0.1'/><parameter name='IP' value='10.0.0.2'/>`;
  const filter = `<filter name='f'><rule action='accept' direction='out'><ip srcipaddr='$IP'/></rule></filter>`;
  assert.deepEqual(chain(table([filter], parameters), 'out').slice(2), [
    'ether type ip ip saddr 10.0.0.1 accept',
    'ether type ip ip saddr 10.0.0.2 accept',
  ]);
  assert.throws(() => table([filter.replace('$IP', '$ELSE')]), /unresolvable variables .*: ELSE/);
  assert.throws(() => table([filter], `<parameter name='CTRL_IP_LEARNING' value='none'/>`), /unresolvable variables .*: IP/);
});

test('an address that is not given is the first one that the guest uses', () => {
  const text = table([
    `<filter name='f'><rule action='return' direction='out'><ip srcipaddr='$IP'/></rule><rule action='return' direction='out'><arp arpsrcipaddr='$IP'/></rule></filter>`,
  ]);
  assert.match(text, /set learned \{\ntype ipv4_addr; size 1; flags dynamic;\n\}/);
  assert.deepEqual(chain(text, 'out').slice(2), [
    'ether saddr 52:54:00:11:22:33 ip saddr != 0.0.0.0 add @learned { ip saddr }',
    'ether saddr 52:54:00:11:22:33 arp saddr ip != 0.0.0.0 add @learned { arp saddr ip }',
    'ether type ip ip saddr @learned return',
    'ether type arp arp saddr ip @learned return',
  ]);
});

test('ports, masks, negation and protocols are said in nftables’ words', () => {
  const out = (match: string): string => {
    const text = table([`<filter name='f'><rule action='drop' direction='out'>${match}</rule></filter>`]);
    return (chain(text, 'out')[2] ?? chain(text, 'out_tracked')[2])!;
  };
  const said: readonly (readonly [string, string])[] = [
    [
      `<ip protocol='udp' srcportstart='67' dstportstart='68' dstportend='70'/>`,
      'ether type ip ip protocol 17 udp sport 67 udp dport 68-70',
    ],
    [`<ip dstipaddr='224.0.0.0' dstipmask='4'/>`, 'ether type ip ip daddr 224.0.0.0/4'],
    [`<ip match='no' srcipaddr='10.0.0.0' srcipmask='255.0.0.0'/>`, 'ether type ip ip saddr != 10.0.0.0/8'],
    [
      `<mac srcmacaddr='01:00:00:00:00:00' srcmacmask='01:00:00:00:00:00'/>`,
      'ether saddr & 01:00:00:00:00:00 == 01:00:00:00:00:00',
    ],
    [`<rarp opcode='Request_Reverse' arpdstmacaddr='$MAC'/>`, 'ether type 0x8035 @nh,48,16 == 0x3 @nh,144,48 == 0x525400112233'],
    [`<ipv6 srcipaddr='fe80::' srcipmask='10'/>`, 'ether type ip6 ip6 saddr fe80::/10'],
    [`<tcp dstportstart='22'/>`, 'ether type ip ip protocol 6 tcp dport 22'],
    [`<icmpv6 type='128'/>`, 'ether type ip6 meta l4proto 58 @th,0,8 128'],
  ];
  for (const [match, text] of said) assert.equal(out(match), `${text} drop`);
  assert.throws(() => out(`<ip srcipaddr='nonsense'/>`), /srcipaddr='nonsense' is no ipv4/);
  assert.throws(() => out(`<ip srcipaddr='1.2.3.4; drop'/>`), /is no ipv4/);
  assert.throws(() => out(`<ip srcportstart='1'/>`), /ports need a protocol/);
  assert.throws(() => out(`<tcp connlimit-above='1'/>`), /'connlimit-above' is not supported/);
});

test('answers to what a rule of connections lets out come in', () => {
  const text = table([`<filter name='f'><rule action='accept' direction='out'><tcp dstportstart='80'/></rule></filter>`]);
  assert.deepEqual(chain(text, 'out_tracked').slice(2), [
    'ether type ip ip protocol 6 tcp dport 80 ct state new,established accept',
  ]);
  assert.deepEqual(chain(text, 'in_tracked').slice(2), ['ether type ip ip protocol 6 tcp sport 80 ct state established accept']);
});

test('filters that refer to each other end', () => {
  const [a, b] = ['a', 'b'].map((name, i) => {
    const other = i === 0 ? 'b' : 'a';
    return `<filter name='${name}'><filterref filter='${other}'/><filterref filter='${other}'/></filter>`;
  });
  assert.throws(() => table([a!, b!]), /refer to each other too often/);
  assert.throws(() => table([a!]), /referenced filter 'b' is missing/);
});
