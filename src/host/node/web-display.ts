// The page of `nonroot run --display web`: one guest's display, over the same gate as the page of `nonroot web`.

import type { Vnc, VncAddress } from '../../display/vnc.ts';
import { Refusal, WebGate } from './web-gate.ts';
import { webChannel } from './web-socket.ts';

const LOOPBACK = '127.0.0.1';
const address = (port: number): VncAddress => ({ host: LOOPBACK, service: String(port), family: 'ipv4', websocket: true });

/** Serves it on a free port of this machine. @throws Error (rejects) with one line where it cannot listen */
export async function serveDisplay(vnc: Vnc): Promise<{ readonly url: string; close(): Promise<void> }> {
  const gate = new WebGate({
    host: LOOPBACK,
    port: 0,
    index: '/display',
    post: async () => {
      throw new Refusal(404, 'there are no commands');
    },
    channel(url, request, socket, head) {
      if (url.pathname !== '/ws/display') throw new Refusal(404, 'there is no such channel');
      const channel = gate.keep(webChannel(request, socket, head, (bytes) => session?.receive(bytes)));
      const transport = { write: (bytes: Uint8Array) => channel.send(bytes), close: () => channel.close() };
      const session = vnc.connect(transport, address(request.socket.localPort ?? 0), address(request.socket.remotePort ?? 0));
      void channel.closed.then(() => session?.close());
    },
  });
  const { url } = await gate.listen();
  return { url, close: () => gate.close() };
}
