// Argument and result shapes that many procedures share. libvirt's remote protocol, version 1, as of 9.0.
import { array, type Codec, flag, int, struct, unsigned, unsignedHyper } from '../xdr.ts';
import {
  domain,
  domainCheckpoint,
  domainSnapshot,
  iface,
  network,
  params,
  storagePool,
  storageVol,
  text,
  uuid,
} from './types.ts';

export const flags = struct({ flags: unsigned });
export const byName = struct({ name: text });
export const byUuid = struct({ uuid });
export const maxNames = struct({ maxNames: int });
export const xmlText = struct({ xml: text });
export const xmlFlags = struct({ xml: text, flags: unsigned });
export const num = struct({ num: int });
export const result = struct({ result: int });
export const capabilities = struct({ capabilities: text });

export const dom = struct({ dom: domain });
export const domFlags = struct({ dom: domain, flags: unsigned });
export const domXmlFlags = struct({ dom: domain, xml: text, flags: unsigned });
export const domPath = struct({ dom: domain, path: text });
export const domPathFlags = struct({ dom: domain, path: text, flags: unsigned });
export const domBandwidth = struct({ dom: domain, path: text, bandwidth: unsignedHyper, flags: unsigned });
export const net = struct({ net: network });
export const ifaceArg = struct({ iface });
export const ifaceFlags = struct({ iface, flags: unsigned });
export const pool = struct({ pool: storagePool });
export const poolFlags = struct({ pool: storagePool, flags: unsigned });
export const vol = struct({ vol: storageVol });
export const volFlags = struct({ vol: storageVol, flags: unsigned });
export const snapFlags = struct({ snap: domainSnapshot, flags: unsigned });
export const snap = struct({ snap: domainSnapshot });
export const checkpointFlags = struct({ checkpoint: domainCheckpoint, flags: unsigned });
export const checkpoint = struct({ checkpoint: domainCheckpoint });

/** What lists ask: with `needResults` false only the count comes back. */
export const list = struct({ needResults: flag, flags: unsigned });
export const domList = struct({ dom: domain, needResults: flag, flags: unsigned });

/** How many parameters the client has room for; 0 asks for their number only. */
export const domRoom = struct({ dom: domain, nparams: int, flags: unsigned });
export const room = struct({ nparams: int, flags: unsigned });
/** Typed parameters, and their number when that was asked. */
export const paramsAndCount = (max: number) => struct({ params: params(max), nparams: int });
export const paramsOnly = (max: number) => struct({ params: params(max) });
export const domParams = (max: number) => struct({ dom: domain, params: params(max), flags: unsigned });
/** A statistic of the host: a name and a number. */
export const nodeStats = (stat: Codec<{ readonly field: string; readonly value: bigint }>, max: number) =>
  struct({ params: array(stat, max), nparams: int });
