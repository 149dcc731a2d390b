// What a row of a target's command table is.

import { check, type ScsiPlan } from './plan.ts';
import { senses } from './sense.ts';
import type { ScsiTarget } from './target.ts';

/** A command: what it comes to. Commands get a block of 16 bytes, zero-filled past what the initiator sent. */
export type Command = (t: ScsiTarget, cdb: Uint8Array) => ScsiPlan;

/** Fails without a medium. */
export const ready =
  (command: Command): Command =>
  (t, cdb) =>
    t.medium === undefined ? check(t.s.trayOpen ? senses.noMediumOpen : senses.noMedium) : command(t, cdb);
