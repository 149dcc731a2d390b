// Node's web client for disks (disk/http/protocol.ts): connections that are kept, ranges, redirections.

import type { Agent as HttpAgent, IncomingMessage } from 'node:http';
import type { Agent as HttpsAgent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError } from '../../disk/block.ts';
import type { HttpAnswer, HttpAsk, HttpClient } from '../../disk/http/protocol.ts';

// Loaded with the first request: `import` of node:http reads all that it exports, another web client (undici) among it, 30 ms of each start.
const http = () => process.getBuiltinModule('node:http');
const https = () => process.getBuiltinModule('node:https');
const tlsModule = () => process.getBuiltinModule('node:tls');

const REDIRECTIONS = 10;
const CONNECTIONS = 8;
const redirects = [301, 302, 303, 307, 308];

/** A name or a certificate that is no better the next time. */
const hopeless = (error: NodeJS.ErrnoException): boolean =>
  /^(ENOTFOUND|ERR_TLS_|CERT_|DEPTH_ZERO_|SELF_SIGNED|UNABLE_TO_)/.test(error.code ?? '');

/** Where a proxy is said by the environment (`http_proxy`, `https_proxy`, `no_proxy`), requests go there. */
export function nodeHttp(): HttpClient {
  const settings = { keepAlive: true, maxSockets: CONNECTIONS, proxyEnv: process.env };
  let plain: HttpAgent | undefined;
  const tls: { verified?: HttpsAgent; any?: HttpsAgent } = {};
  const agentOf = (url: URL, verify: boolean): HttpAgent => {
    if (url.protocol === 'http:') return (plain ??= new (http().Agent)(settings));
    if (!verify) return (tls.any ??= new (https().Agent)({ ...settings, rejectUnauthorized: false }));
    // The system's authorities beside Node's own.
    const { getCACertificates } = tlsModule();
    const ca = [...getCACertificates('default'), ...getCACertificates('system')];
    return (tls.verified ??= new (https().Agent)({ ...settings, ca }));
  };
  const once = (url: URL, ask: HttpAsk, same: boolean): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const { cookie, ...headers } = ask.headers;
      const send = url.protocol === 'https:' ? https().request : http().request;
      const request = send(url, {
        agent: agentOf(url, ask.verify),
        headers: { ...headers, ...(same && cookie !== undefined ? { cookie } : {}) },
        ...(same && ask.login !== undefined ? { auth: ask.login } : {}),
        timeout: ask.timeout,
      });
      const late = (): void => void request.destroy(new Error(`no answer for ${ask.timeout / 1000} s`));
      request
        .on('timeout', late)
        .on('error', (error) => reject(hopeless(error) ? new DiskError(error.message) : error))
        .on('response', resolve)
        .end();
    });
  return {
    async get(ask) {
      const origin = new URL(ask.url).origin;
      let url = new URL(ask.url);
      for (let n = 0; ; n++) {
        const message = await once(url, ask, url.origin === origin);
        const { location } = message.headers;
        if (!redirects.includes(message.statusCode ?? 0) || location === undefined) return answerOf(message);
        message.destroy();
        if (n === REDIRECTIONS) throw new DiskError(`more than ${REDIRECTIONS} redirections`);
        url = new URL(location, url);
        if (url.protocol !== 'http:' && url.protocol !== 'https:')
          throw new DiskError(`it is redirected to ${url.protocol}, accepted are http: and https:`);
      }
    },
    wait: (ms) => sleep(ms),
  };
}

const answerOf = (message: IncomingMessage): HttpAnswer => ({
  status: message.statusCode ?? 0,
  reason: message.statusMessage ?? '',
  header: (name) => {
    const value = message.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  },
  body: message,
  close: () => {
    message.on('error', () => {});
    if (!message.readableEnded) message.destroy();
  },
});
