// How long-running work tells what it does; a progress bar is one listener.

/** A step: what is done, how far it is, and of how much (same unit, bytes or percent); no total when that is unknown. */
export type Step = { readonly label: string; readonly done: number; readonly total?: number };

/** Receives steps. A new label starts a new step. */
export type Report = (step: Step) => void;
