// How migration and saved states are to be done: what monitors have set. QEMU 7.2, qapi/migration.json.

import { QmpError } from '../rpc/qmp/error.ts';
import type { Json } from '../rpc/qmp/json.ts';

/** Capabilities that change nothing here or are carried out; switching others on is refused. */
const possible = new Set(['events', 'pause-before-switchover', 'return-path', 'late-block-activate', 'validate-uuid']);

export class Migration {
  readonly capabilities = new Set<string>();
  readonly parameters: Record<string, Json> = {};

  /** @throws QmpError for one that cannot be on */
  setCapabilities(list: readonly { readonly capability: string; readonly state: boolean }[]): void {
    for (const { capability, state } of list)
      if (state && !possible.has(capability)) throw new QmpError(`Migration capability '${capability}' is not supported`);
    for (const { capability, state } of list) {
      if (state) this.capabilities.add(capability);
      else this.capabilities.delete(capability);
    }
  }
  /** What `query-migrate` tells: nothing before there was one. */
  info(): Json {
    return {};
  }
}
