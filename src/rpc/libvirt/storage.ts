// Procedures of storage pools, volumes and secrets. libvirt's remote protocol, version 1, as of 9.0.
import { array, char, flag, int, nothing, opaque, struct, unsigned, unsignedChar, unsignedHyper } from '../xdr.ts';
import { proc } from './procedure.ts';
import { byName, byUuid, list, maxNames, num, pool, poolFlags, vol, volFlags, xmlFlags, xmlText } from './shapes.ts';
import { limits, names, optionalText, secret, storagePool, storageVol, text } from './types.ts';

const namesOut = struct({ names: names() });
const secretArg = struct({ secret });
const value = opaque(limits.secret);
/** `type`: 0 file, 1 block, 2 directory, 3 network, 4 network directory, 5 ploop. Sizes in bytes. */
const volInfo = struct({ type: char, capacity: unsignedHyper, allocation: unsignedHyper });
/** Bytes from `offset`; `length` 0 means to the end. */
const volRange = struct({ vol: storageVol, offset: unsignedHyper, length: unsignedHyper, flags: unsigned });

export const storageProcedures = {
  connectNumOfStoragePools: proc(71, nothing, num),
  connectListStoragePools: proc(72, maxNames, namesOut),
  connectNumOfDefinedStoragePools: proc(73, nothing, num),
  connectListDefinedStoragePools: proc(74, maxNames, namesOut),
  connectListAllStoragePools: proc(281, list, struct({ pools: array(storagePool, limits.objects), ret: unsigned })),
  connectFindStoragePoolSources: proc(75, struct({ type: text, spec: optionalText, flags: unsigned }), xmlText),
  storagePoolCreateXml: proc(76, xmlFlags, pool),
  storagePoolDefineXml: proc(77, xmlFlags, pool),
  storagePoolCreate: proc(78, poolFlags, nothing),
  storagePoolBuild: proc(79, poolFlags, nothing),
  storagePoolDestroy: proc(80, pool, nothing),
  storagePoolDelete: proc(81, poolFlags, nothing),
  storagePoolUndefine: proc(82, pool, nothing),
  storagePoolRefresh: proc(83, poolFlags, nothing),
  storagePoolLookupByName: proc(84, byName, pool),
  storagePoolLookupByUuid: proc(85, byUuid, pool),
  storagePoolLookupByVolume: proc(86, vol, pool),
  storagePoolLookupByTargetPath: proc(391, struct({ path: text }), pool),
  /** `state`: 0 inactive, 1 building, 2 running, 3 degraded, 4 inaccessible. Sizes in bytes. */
  storagePoolGetInfo: proc(
    87,
    pool,
    struct({ state: unsignedChar, capacity: unsignedHyper, allocation: unsignedHyper, available: unsignedHyper }),
  ),
  storagePoolGetXmlDesc: proc(88, poolFlags, xmlText),
  storagePoolGetAutostart: proc(89, pool, struct({ autostart: flag })),
  storagePoolSetAutostart: proc(90, struct({ pool: storagePool, autostart: flag }), nothing),
  storagePoolNumOfVolumes: proc(91, pool, num),
  storagePoolListVolumes: proc(92, struct({ pool: storagePool, maxNames: int }), namesOut),
  storagePoolListAllVolumes: proc(
    282,
    struct({ pool: storagePool, needResults: flag, flags: unsigned }),
    struct({ vols: array(storageVol, limits.objects), ret: unsigned }),
  ),
  storagePoolIsActive: proc(154, pool, struct({ active: flag })),
  storagePoolIsPersistent: proc(155, pool, struct({ persistent: flag })),

  storageVolCreateXml: proc(93, struct({ pool: storagePool, xml: text, flags: unsigned }), vol),
  storageVolCreateXmlFrom: proc(125, struct({ pool: storagePool, xml: text, from: storageVol, flags: unsigned }), vol),
  storageVolDelete: proc(94, volFlags, nothing),
  storageVolLookupByName: proc(95, struct({ pool: storagePool, name: text }), vol),
  storageVolLookupByKey: proc(96, struct({ key: text }), vol),
  storageVolLookupByPath: proc(97, struct({ path: text }), vol),
  storageVolGetInfo: proc(98, vol, volInfo),
  storageVolGetInfoFlags: proc(378, volFlags, volInfo),
  storageVolGetXmlDesc: proc(99, volFlags, xmlText),
  storageVolGetPath: proc(100, vol, struct({ path: text })),
  storageVolWipe: proc(165, volFlags, nothing),
  storageVolWipePattern: proc(259, struct({ vol: storageVol, algorithm: unsigned, flags: unsigned }), nothing),
  storageVolResize: proc(260, struct({ vol: storageVol, capacity: unsignedHyper, flags: unsigned }), nothing),
  storageVolUpload: proc(208, volRange, nothing, { stream: 'to' }),
  storageVolDownload: proc(209, volRange, nothing, { stream: 'from' }),

  connectNumOfSecrets: proc(139, nothing, num),
  /** UUIDs as text here, not as 16 bytes. */
  connectListSecrets: proc(140, struct({ maxUuids: int }), struct({ uuids: names() })),
  connectListAllSecrets: proc(287, list, struct({ secrets: array(secret, limits.objects), ret: unsigned })),
  secretLookupByUuid: proc(141, byUuid, secretArg),
  secretLookupByUsage: proc(147, struct({ usageType: int, usageId: text }), secretArg),
  secretDefineXml: proc(142, xmlFlags, secretArg),
  secretGetXmlDesc: proc(143, struct({ secret, flags: unsigned }), xmlText),
  secretSetValue: proc(144, struct({ secret, value, flags: unsigned }), nothing),
  secretGetValue: proc(145, struct({ secret, flags: unsigned }), struct({ value })),
  secretUndefine: proc(146, secretArg, nothing),
} as const;
