// Flags of lists come in groups: of each group one, several or none is set, and none means all.

export type FlagGroups<T> = readonly (readonly (readonly [bit: number, test: (one: T) => boolean])[])[];

/** Whether an object is among those that the flags of a list ask for. */
export function wanted<T>(object: T, flags: number, groups: FlagGroups<T>): boolean {
  return groups.every((group) => {
    const asked = group.filter(([bit]) => (flags & bit) !== 0);
    return asked.length === 0 || asked.some(([, test]) => test(object));
  });
}
