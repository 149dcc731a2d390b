// The handlers that tier 0's main loop holds, hottest first: measured over boots and busybox programs by tools/profile-handlers.ts.

export const hotHandlers: readonly string[] = [];
