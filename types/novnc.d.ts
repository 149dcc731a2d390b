// The part of noVNC that the page uses; the package brings no types. noVNC documentation, "API".
declare module '@novnc/novnc' {
  export default class RFB extends EventTarget {
    constructor(
      target: HTMLElement,
      url: string,
      options?: { readonly shared?: boolean; readonly wsProtocols?: readonly string[] },
    );
    scaleViewport: boolean;
    resizeSession: boolean;
    viewOnly: boolean;
    background: string;
    sendCtrlAltDel(): void;
    sendCredentials(credentials: { readonly username?: string; readonly password?: string; readonly target?: string }): void;
    focus(): void;
    disconnect(): void;
  }
}
