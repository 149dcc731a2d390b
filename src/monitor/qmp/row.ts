// One row of the table of QMP commands: name, arguments, result and what it does. Dispatch, query-commands and query-qmp-schema follow
// from it. QEMU 7.2, "QEMU QMP Reference Manual".

import type { Members, MembersValue, Schema } from '../../rpc/qmp/schema.ts';
import type { QmpSession } from '../../rpc/qmp/server.ts';
import { type Command, command } from '../../rpc/qmp/table.ts';
import type { Emulator } from '../emulator.ts';

export interface QmpRow {
  readonly command: Command;
  readonly run: (e: Emulator, args: never, session: QmpSession) => unknown;
}
export type QmpTable = Readonly<Record<string, QmpRow>>;

interface Extra {
  readonly oob?: boolean;
  readonly open?: boolean;
  readonly features?: readonly string[];
}

/** A command that returns nothing. */
export const action = <const M extends Members>(
  args: M,
  run: (e: Emulator, args: MembersValue<M>, session: QmpSession) => void | Promise<void>,
  extra?: Extra,
): QmpRow => ({
  command: command(args, undefined, extra) as unknown as Command,
  run: async (e, a, session) => {
    await run(e, a, session);
    return {};
  },
});

/** A command with a result. */
export const query = <const M extends Members, R>(
  args: M,
  ret: Schema<R>,
  run: (e: Emulator, args: MembersValue<M>, session: QmpSession) => R | Promise<R>,
  extra?: Extra,
): QmpRow => ({ command: command(args, ret, extra) as unknown as Command, run });

/** A command whose arguments are a union, by a member that chooses the others. */
export const unionAction = <A>(
  args: Schema<A>,
  run: (e: Emulator, args: A, session: QmpSession) => void | Promise<void>,
  extra?: Extra,
): QmpRow => ({
  command: { ...command({}, undefined, extra), args } as unknown as Command,
  run: async (e, a, session) => {
    await run(e, a, session);
    return {};
  },
});
