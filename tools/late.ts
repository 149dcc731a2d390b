// A plugin of esbuild: modules that a start may not need run when one of their exports is first used, not when those that import them do.

import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import type { Plugin } from 'esbuild';

const root = dirname(import.meta.dirname);
/** Node's modules that a start needs first, if at all, when something is done with them. */
const NODE = ['child_process', 'crypto', 'dgram', 'dns', 'http', 'https', 'module', 'net', 'tls', 'tty', 'zlib'];
/** Our own: devices that a machine may not have. */
const OWN = /^src\/machine\/types\/(?!(cpu|seat|virtio)\.ts)/;

/** What our modules import of one of Node's, by name. */
function used(name: string): ReadonlySet<string> {
  const names = new Set<string>();
  for (const file of globSync('{bin,src}/**/*.ts', { cwd: root })) {
    for (const [, what] of readFileSync(join(root, file), 'utf8').matchAll(
      new RegExp(`^(?:import|export) ([^;]*) from 'node:${name}';`, 'gm'),
    )) {
      const list = /^{([^}]*)}$/.exec(what!)?.[1];
      if (list === undefined && !what!.startsWith('type '))
        throw new Error(`Cannot bundle ${file}: accepted of node:${name} are imports by name`);
      for (const word of list?.split(',') ?? []) names.add(word.trim().split(' ')[0]!);
    }
  }
  return names;
}

/** What a module of ours exports, by name. */
function exported(path: string): ReadonlySet<string> {
  const text = readFileSync(path, 'utf8');
  const other = /^export (?:default|\*|{).*/m.exec(text)?.[0];
  if (other !== undefined)
    throw new Error(`Cannot bundle ${path}: found ${other}, accepted of a module that runs late are exports of declarations`);
  return new Set([...text.matchAll(/^export (?:async )?(?:const|let|class|function)\*? (\w+)/gm)].map(([, name]) => name!));
}

export const late: Plugin = {
  name: 'late',
  setup({ onResolve, onLoad, resolve }) {
    onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      kind === 'import-statement' && NODE.includes(path.slice(5)) ? { path: path.slice(5), namespace: 'late' } : undefined,
    );
    onResolve({ filter: /^\.\.?\// }, async ({ path, kind, resolveDir }) => {
      if (kind !== 'import-statement' || !OWN.test(relative(root, join(resolveDir, path)))) return undefined;
      const found = await resolve(path, { kind: 'require-call', resolveDir });
      return { path: found.path, namespace: 'late' };
    });
    onLoad({ filter: /./, namespace: 'late' }, ({ path }) => {
      const names = [...(NODE.includes(path) ? used(path) : exported(path))];
      const contents = `for (const name of ${JSON.stringify(names)}) Object.defineProperty(exports, name, { enumerable: true, get: () => require(${JSON.stringify(path)})[name] });`;
      return { contents, resolveDir: root };
    });
  },
};
