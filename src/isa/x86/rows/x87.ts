// All x87 rows (Intel SDM volume 1, chapter 8).

import type { Row } from '../row.ts';
import { x87ArithRows } from './x87-arith.ts';
import { x87ControlRows } from './x87-control.ts';
import { x87MoveRows } from './x87-move.ts';
import { x87TranscendentalRows } from './x87-transcendental.ts';

export const x87Rows: readonly Row[] = [...x87MoveRows, ...x87ArithRows, ...x87TranscendentalRows, ...x87ControlRows];
