import assert from 'node:assert/strict';
import { test } from 'node:test';
import { columns, describeOptions, type Option, parseArguments, UsageError } from './args.ts';

const options: readonly Option[] = [
  { names: ['--memory', '-m'], value: 'SIZE', help: 'memory' },
  { names: ['--verbose'], help: 'talk' },
  { names: ['--disk'], value: 'FILE', help: '', refused: 'not yet' },
];

test('values come after a space or an equals sign, under any name, and words stand between', () => {
  const args = parseArguments(options, 2, ['a', '-m', '1', '--verbose', '--memory=2', '--', '-b']);
  assert.deepEqual([args.get('--memory'), args.get('--verbose'), args.get('--help')], ['2', '', undefined]);
  assert.deepEqual(args.words, ['a', '-b']);
});

test('a command line that cannot be used is a usage error that says why', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['--fly', /Cannot use option --fly: accepted are --memory --verbose --disk/],
    ['-m', /its value SIZE is missing/],
    ['--verbose=1', /--verbose takes no value/],
    ['--disk d', /Cannot use --disk: not yet/],
    ['a b', /Cannot use "b": one word is accepted/],
  ];
  for (const [line, message] of cases) {
    assert.throws(
      () => parseArguments(options, 1, line.split(' ')),
      (error: unknown) => error instanceof UsageError && message.test(error.message),
      line,
    );
  }
});

test('the help lists what is accepted, in lines of 80 characters', () => {
  const text = describeOptions(options);
  assert.match(text, /-m, --memory SIZE/);
  assert.doesNotMatch(text, /--disk/);
  for (const line of columns([['name', 'word '.repeat(60).trim()]]).split('\n')) assert.ok(line.length <= 80, line);
});
