// Every instruction row.

import type { Row } from '../row.ts';
import { arithmeticRows } from './arithmetic.ts';
import { bmiRows } from './bmi.ts';
import { controlRows } from './control.ts';
import { cryptoRows } from './crypto.ts';
import { f16cRows } from './f16c.ts';
import { flagRows } from './flags.ts';
import { flowRows } from './flow.ts';
import { fmaRows } from './fma.ts';
import { ioRows } from './io.ts';
import { monitorRows } from './monitor.ts';
import { moveRows } from './move.ts';
import { msrRows } from './msr.ts';
import { pseudoRows } from './pseudo.ts';
import { segmentRows } from './segment.ts';
import { shiftRows } from './shift.ts';
import { sseCompareRows } from './sse-compare.ts';
import { sseConvertRows } from './sse-convert.ts';
import { sseFloatRows } from './sse-float.ts';
import { sseIntRows } from './sse-int.ts';
import { sseMoveRows } from './sse-move.ts';
import { sseShuffleRows } from './sse-shuffle.ts';
import { sseStringRows } from './sse-string.ts';
import { stringRows } from './string.ts';
import { syscallRows } from './syscall.ts';
import { systemRows } from './system.ts';
import { transferRows } from './transfer.ts';
import { vexRows } from './vex.ts';
import { vexLaneRows } from './vex-lanes.ts';
import { x87Rows } from './x87.ts';
import { xsaveRows } from './xsave.ts';

export const allRows: readonly Row[] = [
  ...arithmeticRows,
  ...shiftRows,
  ...moveRows,
  ...flowRows,
  ...stringRows,
  ...segmentRows,
  ...transferRows,
  ...syscallRows,
  ...flagRows,
  ...controlRows,
  ...msrRows,
  ...ioRows,
  ...systemRows,
  ...monitorRows,
  ...sseMoveRows,
  ...sseCompareRows,
  ...sseConvertRows,
  ...sseFloatRows,
  ...sseIntRows,
  ...sseShuffleRows,
  ...sseStringRows,
  ...vexRows,
  ...vexLaneRows,
  ...cryptoRows,
  ...f16cRows,
  ...fmaRows,
  ...bmiRows,
  ...x87Rows,
  ...xsaveRows,
  ...pseudoRows,
];
