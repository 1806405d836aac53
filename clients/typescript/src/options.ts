// Options that are numbers: each has a default and a range.

import { TrunklineError } from "./error.js";

type Ranges<K extends string> = Readonly<
  Record<K, readonly [byDefault: number, least: number, most: number]>
>;

/** Fills in the defaults, and refuses what lies out of its range. */
export function checkedNumbers<K extends string>(
  ranges: Ranges<K>,
  options: { [name in NoInfer<K>]?: number },
): Record<K, number> {
  const checked = {} as Record<K, number>;
  for (const name of Object.keys(ranges) as K[]) {
    const [byDefault, least, most] = ranges[name];
    const value = options[name] ?? byDefault;
    if (!Number.isInteger(value) || value < least || value > most) {
      throw TrunklineError.invalid(name, `must be a whole number from ${least} to ${most}`);
    }
    checked[name] = value;
  }
  return checked;
}
