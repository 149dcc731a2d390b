// `nonroot web` on this host: the page's server before the daemon that a URI says.

import type { WebSettings } from '../../cli/web.ts';
import { parseUri } from '../../daemon/peer.ts';
import { connectDaemon } from './daemon-main.ts';
import { startWeb, type WebServer } from './web-server.ts';

/** Starts it. @throws Error (rejects) with one line where the daemon does not answer or the address is taken */
export async function serveWeb({ host, port, connect }: WebSettings): Promise<WebServer> {
  // Said now, not to the first page that asks.
  (await connectDaemon(connect)).close();
  const uri = connect ?? process.env['NONROOT_URI'];
  const daemonHost = (uri === undefined ? '' : parseUri(uri).host) || '127.0.0.1';
  return startWeb({ host, port, connect: () => connectDaemon(connect), daemonHost });
}
