// Where direct kernel boot puts its own data in guest RAM: below 0x30000, which no kernel segment may use but those of multiboot kernels,
// and the firmware tables in the BIOS area, where operating systems scan for them
// (ACPI 6.4, section 5.2.5.1; SMBIOS 3.5, section 5.2.2).

export const GDT_ADDRESS = 0x1000;
/** PVH `hvm_start_info` or multiboot information, with the module lists and memory maps that they point to. */
export const INFO_ADDRESS = 0x2000;
export const INFO_SIZE = 0x4000;
/** Linux `boot_params`, one page. */
export const ZERO_PAGE_ADDRESS = 0x7000;
/** One page: chained `setup_data` records. */
export const SETUP_DATA_ADDRESS = 0x8000;
/** PML4, PDPT and four page directories: six pages. */
export const PAGE_TABLES_ADDRESS = 0x9000;
/** Real-mode setup code with its stack and heap: 64 KiB. */
export const REAL_MODE_ADDRESS = 0x10000;
/** Command lines and module strings: 64 KiB. */
export const STRINGS_ADDRESS = 0x20000;
export const STRINGS_SIZE = 0x10000;
/** The first byte that a kernel segment may use. */
export const LOW_DATA_END = 0x30000;

export const ACPI_ADDRESS = 0xe0000;
export const ACPI_MAX_SIZE = 0x10000;
export const SMBIOS_ADDRESS = 0xf0000;
export const SMBIOS_MAX_SIZE = 0x10000;
