// Which display an input device belongs to.

import type { Seat } from '../../display/input.ts';
import { str, uint32 } from '../properties.ts';

export const seatProperties = {
  display: str('ID of the display whose viewers it serves; all without'),
  head: uint32(0, 'which of the displays of that device'),
};
export const seatOf = (p: { readonly display: string | undefined; readonly head: number }): Seat | undefined =>
  p.display === undefined ? undefined : { display: p.display, head: p.head };
