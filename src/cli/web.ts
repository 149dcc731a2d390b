// `nonroot web`: options of the page's server. Contract, section "The page".
import { describeOptions, type Option, parseArguments, UsageError } from './args.ts';
import type { CliHost } from './host.ts';

/** What the command line says of the page's server. */
export interface WebSettings {
  readonly host: string;
  readonly port: number;
  readonly connect: string | undefined;
}

const options: readonly Option[] = [
  { names: ['--listen'], value: 'ADDR:PORT', help: 'where to serve (default 127.0.0.1:8006; port 0 takes a free one)' },
  { names: ['--insecure'], help: 'allow addresses other than loopback: the connection is not encrypted' },
  {
    names: ['--connect', '-c'],
    value: 'URI',
    help: 'the daemon, as for `nonroot list` (default: $NONROOT_URI, else the usual socket)',
  },
];

const help = (): string => `Usage: nonroot web [OPTION...]

Serves a page to manage guests in a browser: their list with live plots, console,
display, snapshots and documents. Prints the address to open; its token lets
in who has it.

${describeOptions(options)}
`;

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);

function listenOf(text: string): { host: string; port: number } {
  const match = /^(?:(\[[0-9A-Fa-f:.]+\]|[^:[\]]+):)?(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65_535) throw new UsageError(`Cannot listen at "${text}": accepted are ADDR:PORT and PORT`);
  return { host: (match[1] ?? '127.0.0.1').replace(/[[\]]/g, ''), port: Number(match[2]) };
}

export async function webCommand(argv: readonly string[], host: CliHost): Promise<number> {
  const args = parseArguments(options, 0, argv);
  if (args.get('--help') !== undefined) {
    await host.out.write(help());
    return 0;
  }
  const place = listenOf(args.get('--listen') ?? '127.0.0.1:8006');
  if (!isLoopback(place.host) && args.get('--insecure') === undefined)
    throw new UsageError(`Cannot listen at ${place.host}: accepted are loopback addresses, unless --insecure is given`);
  const server = await host.web({ ...place, connect: args.get('--connect') });
  await host.out.write(`${server.url}\n`);
  await new Promise<void>((resolve) => host.onSignal(() => resolve()));
  await server.close();
  return 0;
}
