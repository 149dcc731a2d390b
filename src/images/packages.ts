// Parser of apt's Packages index and of package versions: deb-control(5), and Debian Policy 4.6, sections 5.1, 5.6.12 and 7.1.

/** A package of an index: what is needed to resolve, fetch and verify it. */
export type Package = {
  readonly name: string;
  readonly version: string;
  /** Path relative to the mirror's base. */
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  readonly depends: readonly (readonly Dependency[])[];
};

/** One alternative of a dependency. */
export type Dependency = { readonly name: string; readonly relation?: string; readonly version?: string };

/**
 * Packages of an index (or of `apt-cache show`), by name, each list newest version first.
 * Stanzas without a file to download (Filename, Size, SHA256), such as those of dpkg's status, are left out.
 * @param wanted names to take; scanning a full index for a few names takes a fraction of parsing it all
 */
export function parsePackages(text: string, wanted: (name: string) => boolean = () => true): Map<string, Package[]> {
  const found = new Map<string, Package[]>();
  for (let at = 0; at < text.length; ) {
    const blank = text.indexOf('\n\n', at);
    const end = blank < 0 ? text.length : blank;
    const start = at;
    at = end + 2;
    const name = /^\s*Package: *(\S+)/.exec(text.slice(start, start + 200))?.[1];
    if (name !== undefined && !wanted(name)) continue;
    const fields = parseStanza(text.slice(start, end));
    const entry = toPackage(fields);
    if (!entry || !wanted(entry.name)) continue;
    const versions = found.get(entry.name) ?? [];
    if (!versions.some((other) => other.sha256 === entry.sha256)) versions.push(entry);
    found.set(entry.name, versions);
  }
  for (const versions of found.values()) versions.sort((a, b) => compareVersions(b.version, a.version));
  return found;
}

/** Fields of one stanza, by lower-case name; continuation lines are joined with newlines. */
export function parseStanza(stanza: string): Map<string, string> {
  const fields = new Map<string, string>();
  let last = '';
  for (const line of stanza.split('\n')) {
    const colon = line.indexOf(':');
    if (/^[ \t]/.test(line)) fields.set(last, `${fields.get(last) ?? ''}\n${line.slice(1)}`);
    else if (colon > 0) fields.set((last = line.slice(0, colon).toLowerCase()), line.slice(colon + 1).trim());
  }
  return fields;
}

/** A Depends field: every inner list is a choice, all outer ones are needed. Architecture and build qualifiers are dropped. */
export function parseDepends(field: string): Dependency[][] {
  const groups = field.split(',').map((group) => group.trim());
  return groups
    .filter((group) => group !== '')
    .map((group) =>
      group.split('|').map((alternative) => {
        const match = /^\s*([^\s:(]+)(?::[^\s(]+)?\s*(?:\(\s*(<<|<=|=|>=|>>)\s*([^\s)]+)\s*\))?/.exec(alternative);
        if (!match) throw new Error(`Cannot read dependency "${alternative.trim()}": accepted is NAME (RELATION VERSION)`);
        return { name: match[1]!, ...(match[2] ? { relation: match[2], version: match[3]! } : {}) };
      }),
    );
}

/**
 * The first dependency of a package whose name matches: `linux-image-cloud-amd64` names the kernel of the day in this way.
 * @returns undefined when the package itself is what is wanted
 */
export function followDependency(from: Package, pattern: RegExp): Dependency | undefined {
  for (const group of from.depends) for (const choice of group) if (pattern.test(choice.name)) return choice;
  return undefined;
}

/** Negative, zero or positive as version `a` is older than, the same as or newer than `b`. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [splitVersion(a), splitVersion(b)];
  return left.epoch - right.epoch || compareParts(left.upstream, right.upstream) || compareParts(left.revision, right.revision);
}

function splitVersion(version: string): { epoch: number; upstream: string; revision: string } {
  const colon = version.indexOf(':');
  const rest = version.slice(colon + 1);
  const dash = rest.lastIndexOf('-');
  return {
    epoch: colon < 0 ? 0 : Number(version.slice(0, colon)),
    upstream: dash < 0 ? rest : rest.slice(0, dash),
    revision: dash < 0 ? '' : rest.slice(dash + 1),
  };
}

/** Policy 5.6.12: runs of non-digits and of digits in turn; `~` sorts before the end, letters before all else. */
function compareParts(a: string, b: string): number {
  const weight = (char: string | undefined) => {
    if (char === undefined) return 0;
    if (char === '~') return -1;
    return /[A-Za-z]/.test(char) ? char.charCodeAt(0) : char.charCodeAt(0) + 256;
  };
  let i = 0;
  let j = 0;
  const digit = (text: string, at: number) => at < text.length && text[at]! >= '0' && text[at]! <= '9';
  while (i < a.length || j < b.length) {
    while ((i < a.length && !digit(a, i)) || (j < b.length && !digit(b, j))) {
      const difference = weight(digit(a, i) ? undefined : a[i]) - weight(digit(b, j) ? undefined : b[j]);
      if (difference !== 0) return difference;
      i++;
      j++;
    }
    const [from, start] = [i, j];
    while (digit(a, i)) i++;
    while (digit(b, j)) j++;
    const difference = Number(a.slice(from, i) || 0) - Number(b.slice(start, j) || 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function toPackage(fields: Map<string, string>): Package | undefined {
  const [name, version, filename] = [fields.get('package'), fields.get('version'), fields.get('filename')];
  const sha256 = fields.get('sha256')?.toLowerCase() ?? '';
  const size = Number(fields.get('size'));
  if (!name || !version || !filename || !/^[0-9a-f]{64}$/.test(sha256) || !Number.isSafeInteger(size)) return undefined;
  return { name, version, filename, size, sha256, depends: parseDepends(fields.get('depends') ?? '') };
}
