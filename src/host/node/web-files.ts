// The files of the web page: an allow-list, TypeScript without its types, libraries from node_modules. Node documentation, "module".

import { createHash } from 'node:crypto';
import { existsSync, globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire, stripTypeScriptTypes } from 'node:module';
import { extname, join, sep } from 'node:path';

export interface WebFile {
  readonly type: string;
  readonly bytes: Uint8Array;
}
export interface WebFiles {
  /** A file by its path in the URL; undefined where the list has none. */
  get(path: string): Promise<WebFile | undefined>;
  /** What the inline scripts of the page at a path are allowed by, for Content-Security-Policy. */
  readonly inline: (path: '/' | '/display') => Promise<string>;
}

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.ts': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** The sources are in `src/web` of a clone and of the package, whose compiled files are one folder deeper. */
function sourceFolder(): string {
  const found = ['../..', '../../../../src']
    .map((up) => join(import.meta.dirname, up, 'web'))
    .find((path) => existsSync(join(path, 'page')));
  if (found === undefined) throw new Error('Cannot serve the page: the package is without its folder src/web');
  return found;
}

/** The folder of a package, wherever npm has put it. */
function packageFolder(name: string): string {
  const found = createRequire(import.meta.url)
    .resolve.paths(name)
    ?.map((path) => join(path, name))
    .find((path) => existsSync(join(path, 'package.json')));
  if (found === undefined)
    throw new Error(`Cannot serve the page: package ${name} is not installed; \`npm install\` puts it there`);
  return found;
}

/** Without the warning that Node's function is experimental: the versions of Node that the package takes have it. */
function withoutTypes(source: string): string {
  const warn = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(source, { mode: 'strip' });
  } finally {
    process.emitWarning = warn;
  }
}

/** Reads the list of what there is once; contents as they are asked for, and then keeps them. */
export function webFiles(): WebFiles {
  const list = new Map<string, string>();
  const add = (prefix: string, folder: string, pattern: string): void => {
    for (const name of globSync(pattern, { cwd: folder })) list.set(`${prefix}/${name.split(sep).join('/')}`, join(folder, name));
  };
  const source = sourceFolder();
  add('/web', source, 'api.ts');
  add('/web', source, 'page/*.{ts,css,svg}');
  for (const path of [...list.keys()]) if (path.endsWith('.test.ts')) list.delete(path);
  list.set('/', join(source, 'page', 'index.html'));
  list.set('/display', join(source, 'page', 'display.html'));
  add('/lib/xterm', packageFolder('@xterm/xterm'), '{lib/xterm.mjs,css/xterm.css}');
  add('/lib/fit', packageFolder('@xterm/addon-fit'), 'lib/addon-fit.mjs');
  add('/lib/novnc', packageFolder('@novnc/novnc'), '{core,vendor}/**/*.js');

  const kept = new Map<string, Promise<WebFile>>();
  const load = async (path: string): Promise<WebFile> => {
    const bytes = await readFile(path);
    const type = types[extname(path)] ?? 'application/octet-stream';
    if (!path.endsWith('.ts')) return { type, bytes };
    return { type, bytes: new TextEncoder().encode(withoutTypes(bytes.toString('utf8'))) };
  };
  const get = async (path: string): Promise<WebFile | undefined> => {
    const file = list.get(path);
    if (file === undefined) return undefined;
    const found = kept.get(file) ?? load(file);
    kept.set(file, found);
    return found;
  };
  return {
    get,
    async inline(path) {
      const page = new TextDecoder().decode((await get(path))!.bytes);
      const scripts = [...page.matchAll(/<script type="importmap">([\s\S]*?)<\/script>/g)].map((match) => match[1]!);
      return scripts.map((text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`).join(' ');
    },
  };
}
