// Every instruction row.

import type { Row } from '../row.ts';
import { arithmeticRows } from './arithmetic.ts';
import { flowRows } from './flow.ts';
import { moveRows } from './move.ts';
import { pseudoRows } from './pseudo.ts';
import { shiftRows } from './shift.ts';
import { stringRows } from './string.ts';

export const allRows: readonly Row[] = [...arithmeticRows, ...shiftRows, ...moveRows, ...flowRows, ...stringRows, ...pseudoRows];
