// What tests of all rooms share.

/** Numbers from 0 up to the one that is asked for, the same ones for the same seed (a linear congruential generator). */
export function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
