// The architecture as data: each folder under src/ and the folders that it may import.
// `layers.test.ts` holds every import of the code against this table.

/** Folder under `src/` (the longest matching prefix counts) and the folders that it may import besides itself. */
export const layers: Readonly<Record<string, readonly string[]>> = {
  bits: [],
  ir: ['bits'],
  wasm: ['bits', 'ir'],
  'isa/x86': ['bits', 'ir'],
  bus: ['bits'],
  devices: ['bits', 'bus'],
  disk: ['bits'],
  net: ['bits'],
  chardev: ['bits'],
  rpc: ['bits'],
  display: ['bits', 'rpc'],
  domain: ['bits'],
  daemon: ['bits', 'rpc', 'domain', 'disk'],
  firmware: ['bits'],
  images: ['bits'],
  web: [],
  'web/page': ['web'],
  accel: ['bits', 'ir', 'isa', 'wasm', 'bus'],
  machine: ['bits', 'bus', 'devices', 'disk', 'display', 'net', 'firmware', 'isa', 'accel'],
  monitor: ['bits', 'bus', 'rpc', 'chardev', 'disk', 'display', 'net', 'isa', 'accel', 'devices', 'machine'],
  api: ['bits', 'images', 'machine'],
  cli: ['bits', 'devices', 'api', 'images', 'machine', 'disk', 'display', 'rpc', 'chardev', 'net', 'monitor'],
  'host/node': [
    'bits',
    'devices',
    'bus',
    'accel',
    'isa',
    'machine',
    'images',
    'api',
    'cli',
    'firmware',
    'disk',
    'net',
    'rpc',
    'display',
    'chardev',
    'monitor',
    'domain',
    'daemon',
    'web',
  ],
};

/** npm packages that a folder may import: without Node or DOM dependencies in the core, those of the page in `web`. */
export const packages: Readonly<Record<string, readonly string[]>> = {
  domain: ['saxes'],
  web: ['@novnc/novnc', '@xterm/addon-fit', '@xterm/xterm'],
};

/** Top-level folders outside `src/` that compose the rest and may import everything. */
export const roots = ['bin', 'test', 'bench', 'tools'] as const;
