// The error record serialization table: how an operating system keeps records over a crash in the device `acpi-erst`.
// ACPI Specification 6.4, sections 18.5.1 (table 18.15) and 18.5.1.2 (instruction entries, table 18.18).

import { ERST_EXECUTE, erstAction, erstRegister } from '../../bits/erst.ts';
import { bytesOf, little } from './aml.ts';

const instruction = { read: 0, readCompare: 1, write: 2, writeConstant: 3 } as const;
/** Bytes of the table's header, ACPI's among them. */
const HEADER = 48;
const WORD = 4;
const QUAD = 8;

/** Of each action, what comes before its number is written to the action register, and what after. */
const entries = ((): readonly {
  readonly action: number;
  readonly what: number;
  readonly register: number;
  readonly bytes: 4 | 8;
  readonly value: number;
}[] => {
  const a = erstAction;
  const { action: ACTION, value: VALUE } = erstRegister;
  const entry = (action: number, what: number, register: number, bytes: 4 | 8, value = 0) => ({ action, what, register, bytes, value }); // biome-ignore format: one line
  const act = (action: number) => entry(action, instruction.writeConstant, ACTION, WORD, action);
  const give = (action: number, bytes: 4 | 8) => [entry(action, instruction.write, VALUE, bytes), act(action)];
  const take = (action: number, bytes: 4 | 8) => [act(action), entry(action, instruction.read, VALUE, bytes)];
  return [
    act(a.beginWrite),
    act(a.beginRead),
    act(a.beginClear),
    act(a.end),
    ...give(a.setOffset, WORD),
    entry(a.execute, instruction.writeConstant, VALUE, WORD, ERST_EXECUTE),
    act(a.execute),
    act(a.checkBusy),
    entry(a.checkBusy, instruction.readCompare, VALUE, WORD, 1),
    ...take(a.getStatus, WORD),
    ...take(a.getIdentifier, QUAD),
    ...give(a.setIdentifier, QUAD),
    ...take(a.getCount, WORD),
    act(a.beginDummyWrite),
    ...take(a.getRange, QUAD),
    ...take(a.getRangeLength, QUAD),
    ...take(a.getRangeAttributes, WORD),
    ...take(a.getTimings, QUAD),
  ];
})();

/** The table without ACPI's header, for registers at `base`. */
export const erstBody = (base: number): Uint8Array =>
  bytesOf(
    little(HEADER, 4),
    little(0, 4),
    little(entries.length, 4),
    ...entries.map(({ action, what, register, bytes, value }) =>
      bytesOf(
        action,
        what,
        0,
        0,
        // A generic address in memory (5.2.3.2), its access as wide as the register.
        bytesOf(0, 8 * bytes, 0, bytes === WORD ? 3 : 4, little(base + register, 8)),
        little(value, 8),
        little(bytes === WORD ? 0xffff_ffff : 2n ** 64n - 1n, 8),
      ),
    ),
  );
