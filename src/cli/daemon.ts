// `nonrootd` and `nonroot daemon`: options of the management daemon. Contract, section "The daemon".
import { describeOptions, type Option, parseArguments, UsageError } from './args.ts';
import type { CliHost } from './host.ts';

/** What the command line says; the host fills in the rest. */
export interface DaemonSettings {
  readonly socket: string | undefined;
  readonly state: string | undefined;
  readonly listen: readonly string[];
  readonly libvirtPaths: boolean;
  readonly config: string | undefined;
  readonly foreground: boolean;
  readonly insecure: boolean;
}

const options: readonly Option[] = [
  { names: ['--socket'], value: 'PATH', help: 'unix socket to serve on' },
  { names: ['--state'], value: 'DIR', help: 'keep everything below this directory: a private instance' },
  {
    names: ['--listen'],
    value: 'URI',
    help: 'serve on tcp://HOST[:PORT] or tls://HOST[:PORT] too; several with commas. TLS asks for a client certificate',
  },
  { names: ['--insecure'], help: 'allow tcp:// on other addresses than loopback' },
  { names: ['--libvirt-paths'], help: "serve on libvirt's own sockets, where virsh -c qemu:///system looks" },
  { names: ['--config'], value: 'FILE', help: 'configuration file (default nonrootd.conf in the configuration directory)' },
  { names: ['--foreground'], help: 'stay in the foreground; otherwise this command ends when the daemon serves' },
];

const help = (name: string): string => `Usage: ${name} [OPTION...]

Manages virtual machines for virsh, virt-install, virt-manager and every other
client of libvirt, in libvirtd's place.

Connect with: virsh -c 'qemu+unix:///system?socket=PATH'

${describeOptions(options)}
`;

function settingsOf(argv: readonly string[]): DaemonSettings | 'help' {
  const args = parseArguments(options, 0, argv);
  if (args.get('--help') !== undefined) return 'help';
  return {
    socket: args.get('--socket'),
    state: args.get('--state'),
    listen: args.get('--listen')?.split(',') ?? [],
    libvirtPaths: args.get('--libvirt-paths') !== undefined,
    config: args.get('--config'),
    foreground: args.get('--foreground') !== undefined,
    insecure: args.get('--insecure') !== undefined,
  };
}

async function run(name: string, argv: readonly string[], host: CliHost): Promise<number> {
  const settings = settingsOf(argv);
  if (settings === 'help') {
    await host.out.write(help(name));
    return 0;
  }
  return host.daemon(settings, argv);
}

export const daemonCommand = (argv: readonly string[], host: CliHost): Promise<number> => run('nonroot daemon', argv, host);

/** The program `nonrootd`, to its exit code. */
export async function nonrootd(argv: readonly string[], host: CliHost): Promise<number> {
  if (argv[0] === '--version') {
    await host.out.write(`nonrootd ${host.version}\n`);
    return 0;
  }
  try {
    return await run('nonrootd', argv, host);
  } catch (error) {
    const usage = error instanceof UsageError;
    const hint = usage ? "\nTry 'nonrootd --help'." : '';
    await host.err.write(`nonrootd: ${error instanceof Error ? error.message : String(error)}${hint}\n`);
    return usage ? 2 : 1;
  }
}
