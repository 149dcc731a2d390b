// What disks over HTTP need of the host, and how they are described. QEMU 7.2 "QEMU QMP Reference Manual", BlockdevOptionsHttp(s).

/** An answer whose status and header fields have come. */
export interface HttpAnswer {
  readonly status: number;
  readonly reason: string;
  /** A field by its name in lower case. */
  header(name: string): string | undefined;
  /** Rejects when the connection breaks or nothing comes for too long. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Gives the connection up unless the body has been read. */
  close(): void;
}

export interface HttpAsk {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** `user:password` for the server of the URL. */
  readonly login: string | undefined;
  /** Milliseconds without a byte until it is given up. */
  readonly timeout: number;
  /** Whether the server's certificate has to be good. */
  readonly verify: boolean;
}

/** A web client of the host. */
export interface HttpClient {
  /** Follows redirections; what is for the URL's server (login, cookie) goes to no other. Rejects with one line, with DiskError where
   * another try is no use. */
  get(ask: HttpAsk): Promise<HttpAnswer>;
  wait(ms: number): Promise<void>;
}

export interface HttpOptions {
  readonly url: string;
  /** Bytes beyond what is asked for (default 256 KiB). */
  readonly readAhead?: number | undefined;
  /** Seconds without a byte until a request is given up (default 5). */
  readonly timeout?: number | undefined;
  readonly verify?: boolean | undefined;
  readonly cookie?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}
