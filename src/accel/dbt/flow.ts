// Control flow graphs of regions: order, dominators and loops (K. Cooper, T. Harvey, K. Kennedy, "A Simple, Fast Dominance Algorithm").

/** What the algorithms need of a block, and what they find out about it. */
export interface FlowNode<T> {
  /** Position in reverse postorder, from 0; -1 for what is not reached. */
  order: number;
  idom: T | null;
  /** Blocks that lead here, one entry for each edge. */
  preds: T[];
  /** A loop starts here. */
  header: boolean;
  /** It is a loop by itself: it leads to its own start. */
  alone: boolean;
  /** It stands behind the block that dominates it directly, not in it: several forward edges meet here, or that one is a loop by itself. */
  merge: boolean;
  /** Children in the dominator tree that are merges, last first. */
  merges: T[];
}

/** Reverse postorder from the entry; sets `order` and `preds`. `successors` names a block once for each edge. */
export function orderBlocks<T extends FlowNode<T>>(entry: T, successors: (b: T) => readonly T[]): T[] {
  const post: T[] = [];
  const seen = new Set([entry]);
  const stack: { block: T; next: T[] }[] = [{ block: entry, next: [...successors(entry)] }];
  while (stack.length > 0) {
    const top = stack[stack.length - 1];
    const s = top.next.pop();
    if (!s) {
      post.push(top.block);
      stack.pop();
    } else if (!seen.has(s)) {
      seen.add(s);
      stack.push({ block: s, next: [...successors(s)] });
    }
  }
  const blocks = post.reverse();
  blocks.forEach((b, i) => {
    b.order = i;
  });
  for (const b of blocks) for (const s of successors(b)) s.preds.push(b);
  return blocks;
}

/** True where every way to `b` leads through `a`. */
export function dominates<T extends FlowNode<T>>(a: T, b: T): boolean {
  for (let x: T | null = b; x && x.order >= a.order; x = x.idom) if (x === a) return true;
  return false;
}

/** Immediate dominators, loop headers and merges. */
export function dominate<T extends FlowNode<T>>(blocks: readonly T[]): void {
  const meet = (a: T, b: T): T => {
    let [x, y] = [a, b];
    while (x !== y) {
      while (x.order > y.order) x = x.idom!;
      while (y.order > x.order) y = y.idom!;
    }
    return x;
  };
  const entry = blocks[0];
  for (let changed = true; changed; ) {
    changed = false;
    for (const b of blocks) {
      if (b === entry) continue;
      let idom: T | null = null;
      for (const p of b.preds) if (p === entry || p.idom) idom = idom ? meet(idom, p) : p;
      if (idom !== b.idom) {
        b.idom = idom;
        changed = true;
      }
    }
  }
  for (const b of blocks) {
    b.header = b.preds.some((p) => p.order >= b.order && dominates(b, p));
    b.alone = b.preds.includes(b);
    b.merge = b.idom?.alone === true || b.preds.filter((p) => p.order < b.order).length > 1;
    if (b.merge) b.idom?.merges.push(b);
  }
  for (const b of blocks) b.merges.sort((x, y) => y.order - x.order);
}
