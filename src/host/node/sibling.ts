// Files of threads lie beside the module that starts them and have its extension: `.ts` in a clone, `.js` where types were taken away,
// `.cjs` in the bundles (tools/bundle.ts).

/** `url`'s extension, with the dot. */
export const extension = (url: string): string => url.slice(url.lastIndexOf('.'));
export const isBundle = (url: string): boolean => extension(url) === '.cjs';
/** The file `name` beside the module at `url`. */
export const sibling = (name: string, url: string): URL => new URL(`./${name}${extension(url)}`, url);
