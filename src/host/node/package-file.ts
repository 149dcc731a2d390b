// Where the package's own package.json is: above `src/` of a clone, above `dist/` of the package or of a clone with bundles.

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The nearest package.json above `directory`. */
export function packageFile(directory: string): string {
  const path = join(directory, 'package.json');
  const parent = dirname(directory);
  return existsSync(path) || parent === directory ? path : packageFile(parent);
}
