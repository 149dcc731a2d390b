// The daemon's configuration file: `name = "text" | number | [ "text", … ]`, one a line, `#` begins a comment. The syntax of libvirtd.conf.

export type Setting = string | number | readonly string[];

const known: Readonly<Record<string, 'text' | 'number' | 'list'>> = {
  listen: 'list',
  auth_tcp: 'text',
  auth_tls: 'text',
  ca_file: 'text',
  cert_file: 'text',
  key_file: 'text',
  allow: 'list',
  users_file: 'text',
  keepalive_interval: 'number',
  keepalive_count: 'number',
  max_clients: 'number',
  emulators: 'list',
  user: 'text',
  graphics_listen: 'text',
  vnc_listen: 'text',
  vnc_auto_unix_socket: 'number',
  vnc_tls: 'number',
  default_tls_x509_cert_dir: 'text',
  vnc_tls_x509_cert_dir: 'text',
  vnc_tls_x509_verify: 'number',
  vnc_password: 'text',
  vnc_sasl: 'number',
  vnc_sasl_dir: 'text',
  confine_files: 'number',
  console_max_size: 'number',
  console_max_backups: 'number',
  networks: 'text',
  host_uuid: 'text',
  hostname: 'text',
  migrate_tls_x509_cert_dir: 'text',
  backup_tls_x509_cert_dir: 'text',
  unix_sock_rw_perms: 'text',
  unix_sock_ro_perms: 'text',
};

/** @throws {Error} naming the line that is wrong */
export function parseConfig(text: string, name: string): ReadonlyMap<string, Setting> {
  const settings = new Map<string, Setting>();
  // A list may go over several lines.
  const lines = text.replace(/\[[^\]]*\]/g, (list) => list.replace(/#.*$/gm, '').replace(/\s*\n\s*/g, ' ')).split('\n');
  for (const [at, line] of lines.entries()) {
    const stripped = line.replace(/^\s*#.*$/, '').trim();
    if (stripped === '') continue;
    const fail = (detail: string): Error => new Error(`Cannot read ${name}: line ${at + 1}: ${detail}`);
    const match = /^(\w+)\s*=\s*(.*?)\s*(?:#.*)?$/.exec(stripped);
    if (!match) throw fail('accepted is NAME = VALUE');
    const [, key = '', value = ''] = match;
    const kind = known[key];
    if (kind === undefined) throw fail(`${key} is unknown, accepted are ${Object.keys(known).join(', ')}`);
    const quoted = /^"([^"]*)"$/.exec(value);
    if (kind === 'number' && /^\d+$/.test(value)) settings.set(key, Number(value));
    else if (kind === 'text' && quoted) settings.set(key, quoted[1]!);
    else if (kind === 'list' && /^\[.*\]$/.test(value)) {
      settings.set(
        key,
        [...value.matchAll(/"([^"]*)"/g)].map((one) => one[1]!),
      );
    } else throw fail(`${key} takes a ${kind}: ${{ text: '"text"', number: '5', list: '[ "one", "two" ]' }[kind]}`);
  }
  return settings;
}

export interface ListenUri {
  readonly transport: 'tcp' | 'tls';
  readonly host: string;
  readonly port: number;
}

/** `tcp://127.0.0.1:16509`, `tls://0.0.0.0`. @throws {Error} for another form */
export function parseListen(uri: string): ListenUri {
  const match = /^(tcp|tls):\/\/(\[[0-9a-fA-F:]+\]|[^:/]+)?(?::(\d+))?\/?$/.exec(uri);
  if (!match) throw new Error(`Cannot listen at ${uri}: accepted are tcp://HOST[:PORT] and tls://HOST[:PORT]`);
  const transport = match[1] as 'tcp' | 'tls';
  const port = match[3] === undefined ? { tcp: 16_509, tls: 16_514 }[transport] : Number(match[3]);
  if (port > 65_535) throw new Error(`Cannot listen at ${uri}: port ${port}: accepted are 0 to 65535`);
  return { transport, host: (match[2] ?? '127.0.0.1').replace(/[[\]]/g, ''), port };
}

export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127\./.test(host);
