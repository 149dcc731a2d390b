// What a machine tells its monitors: QMP's events by name, with their data (QEMU 7.2, "QEMU QMP Reference Manual").

export type ShutdownReason =
  | 'guest-shutdown'
  | 'guest-reset'
  | 'guest-panic'
  | 'host-qmp-quit'
  | 'host-qmp-system-reset'
  | 'host-signal'
  | 'host-ui'
  | 'host-error'
  | 'subsystem-reset';

export interface NoticeData {
  readonly STOP: Readonly<Record<string, never>>;
  readonly RESUME: Readonly<Record<string, never>>;
  readonly RESET: { readonly guest: boolean; readonly reason: ShutdownReason };
  readonly SHUTDOWN: { readonly guest: boolean; readonly reason: ShutdownReason };
  readonly POWERDOWN: Readonly<Record<string, never>>;
  readonly SUSPEND: Readonly<Record<string, never>>;
  readonly WAKEUP: Readonly<Record<string, never>>;
  readonly GUEST_PANICKED: { readonly action: 'pause' | 'poweroff' | 'run'; readonly info?: unknown };
  readonly GUEST_CRASHLOADED: { readonly action: 'run'; readonly info?: unknown };
  readonly RTC_CHANGE: { readonly offset: number; readonly 'qom-path': string };
  readonly DEVICE_DELETED: { readonly device?: string; readonly path: string };
  readonly DEVICE_UNPLUG_GUEST_ERROR: { readonly device?: string; readonly path: string };
  readonly DEVICE_TRAY_MOVED: { readonly device: string; readonly id: string; readonly 'tray-open': boolean };
  readonly BLOCK_IO_ERROR: {
    readonly device: string;
    readonly 'node-name'?: string;
    readonly operation: 'read' | 'write';
    readonly action: 'ignore' | 'report' | 'stop';
    readonly nospace?: boolean;
    readonly reason: string;
  };
  readonly NIC_RX_FILTER_CHANGED: { readonly name?: string; readonly path: string };
  readonly BALLOON_CHANGE: { readonly actual: number };
  readonly VSERPORT_CHANGE: { readonly id: string; readonly open: boolean };
  readonly ACPI_DEVICE_OST: { readonly info: unknown };
}
export type NoticeName = keyof NoticeData;
export type Notify = <K extends NoticeName>(name: K, data: NoticeData[K]) => void;
/** Hears notices; `at` is the host's time in ms since 1970. */
export type NoticeListener = (name: NoticeName, data: NoticeData[NoticeName], at: number) => void;
