// Procedures that copy a domain or its disks: save, dump, snapshots, checkpoints, block jobs, backup, migration.
// libvirt's remote protocol, version 1, as of 9.0.
import { array, flag, int, nothing, struct, unsigned, unsignedHyper } from '../xdr.ts';
import { proc } from './procedure.ts';
import {
  checkpoint,
  checkpointFlags,
  dom,
  domBandwidth,
  domFlags,
  domList,
  domParams,
  domPathFlags,
  domXmlFlags,
  num,
  result,
  snap,
  snapFlags,
  xmlText,
} from './shapes.ts';
import {
  cookie,
  domain,
  domainCheckpoint,
  domainSnapshot,
  limits,
  names,
  optionalText,
  params,
  peekBuffer,
  text,
} from './types.ts';

const snapshots = struct({ snapshots: array(domainSnapshot, limits.objects), ret: int });
const checkpoints = struct({ checkpoints: array(domainCheckpoint, limits.objects), ret: int });
const migration = params(limits.more);
const cookieOut = struct({ cookieOut: cookie });
const prepared = struct({ cookieOut: cookie, uriOut: optionalText });
const begun = struct({ cookieOut: cookie, xml: text });
const finished = struct({ dom: domain, cookieOut: cookie });
const target = { flags: unsignedHyper, dname: optionalText, resource: unsignedHyper };
const bandwidth = struct({ dom: domain, bandwidth: unsignedHyper, flags: unsigned });

export const domainJobProcedures = {
  domainSave: proc(55, struct({ dom: domain, to: text }), nothing),
  domainSaveFlags: proc(232, struct({ dom: domain, to: text, xml: optionalText, flags: unsigned }), nothing),
  domainSaveParams: proc(440, domParams(limits.more), nothing),
  domainRestore: proc(54, struct({ from: text }), nothing),
  domainRestoreFlags: proc(233, struct({ from: text, xml: optionalText, flags: unsigned }), nothing),
  domainRestoreParams: proc(441, struct({ params: params(limits.more), flags: unsigned }), nothing),
  domainSaveImageGetXmlDesc: proc(235, struct({ file: text, flags: unsigned }), xmlText),
  domainSaveImageDefineXml: proc(236, struct({ file: text, xml: text, flags: unsigned }), nothing),
  domainManagedSave: proc(182, domFlags, nothing),
  domainHasManagedSaveImage: proc(183, domFlags, result),
  domainManagedSaveRemove: proc(184, domFlags, nothing),
  domainManagedSaveGetXmlDesc: proc(388, domFlags, xmlText),
  domainManagedSaveDefineXml: proc(389, struct({ dom: domain, xml: optionalText, flags: unsigned }), nothing),
  domainCoreDump: proc(53, struct({ dom: domain, to: text, flags: unsigned }), nothing),
  domainCoreDumpWithFormat: proc(334, struct({ dom: domain, to: text, format: unsigned, flags: unsigned }), nothing),

  domainGetJobInfo: proc(
    163,
    dom,
    struct({
      type: int,
      timeElapsed: unsignedHyper,
      timeRemaining: unsignedHyper,
      dataTotal: unsignedHyper,
      dataProcessed: unsignedHyper,
      dataRemaining: unsignedHyper,
      memTotal: unsignedHyper,
      memProcessed: unsignedHyper,
      memRemaining: unsignedHyper,
      fileTotal: unsignedHyper,
      fileProcessed: unsignedHyper,
      fileRemaining: unsignedHyper,
    }),
  ),
  domainGetJobStats: proc(298, domFlags, struct({ type: int, params: params(limits.more) })),
  domainAbortJob: proc(164, dom, nothing),
  domainAbortJobFlags: proc(442, domFlags, nothing),

  domainSnapshotCreateXml: proc(185, domXmlFlags, snap),
  domainSnapshotGetXmlDesc: proc(186, snapFlags, xmlText),
  domainSnapshotNum: proc(187, domFlags, num),
  domainSnapshotListNames: proc(188, struct({ dom: domain, maxNames: int, flags: unsigned }), struct({ names: names() })),
  domainListAllSnapshots: proc(274, domList, snapshots),
  domainSnapshotNumChildren: proc(246, snapFlags, num),
  domainSnapshotListChildrenNames: proc(
    247,
    struct({ snap: domainSnapshot, maxNames: int, flags: unsigned }),
    struct({ names: names() }),
  ),
  domainSnapshotListAllChildren: proc(275, struct({ snap: domainSnapshot, needResults: flag, flags: unsigned }), snapshots),
  domainSnapshotLookupByName: proc(189, struct({ dom: domain, name: text, flags: unsigned }), snap),
  domainHasCurrentSnapshot: proc(190, domFlags, result),
  domainSnapshotCurrent: proc(191, domFlags, snap),
  domainSnapshotGetParent: proc(244, snapFlags, snap),
  domainSnapshotIsCurrent: proc(271, snapFlags, struct({ current: flag })),
  domainSnapshotHasMetadata: proc(272, snapFlags, struct({ metadata: flag })),
  domainRevertToSnapshot: proc(192, snapFlags, nothing),
  domainSnapshotDelete: proc(193, snapFlags, nothing),

  domainCheckpointCreateXml: proc(411, domXmlFlags, checkpoint),
  domainCheckpointGetXmlDesc: proc(412, checkpointFlags, xmlText),
  domainListAllCheckpoints: proc(413, domList, checkpoints),
  domainCheckpointListAllChildren: proc(
    414,
    struct({ checkpoint: domainCheckpoint, needResults: flag, flags: unsigned }),
    checkpoints,
  ),
  domainCheckpointLookupByName: proc(415, struct({ dom: domain, name: text, flags: unsigned }), checkpoint),
  domainCheckpointGetParent: proc(416, checkpointFlags, struct({ parent: domainCheckpoint })),
  domainCheckpointDelete: proc(417, checkpointFlags, nothing),
  domainBackupBegin: proc(421, struct({ dom: domain, xml: text, checkpointXml: optionalText, flags: unsigned }), nothing),
  domainBackupGetXmlDesc: proc(422, domFlags, xmlText),

  domainBlockPeek: proc(
    103,
    struct({ dom: domain, path: text, offset: unsignedHyper, size: unsigned, flags: unsigned }),
    struct({ buffer: peekBuffer }),
  ),
  domainBlockResize: proc(251, struct({ dom: domain, disk: text, size: unsignedHyper, flags: unsigned }), nothing),
  domainBlockJobAbort: proc(237, domPathFlags, nothing),
  domainGetBlockJobInfo: proc(
    238,
    domPathFlags,
    struct({ found: flag, type: int, bandwidth: unsignedHyper, cur: unsignedHyper, end: unsignedHyper }),
  ),
  domainBlockJobSetSpeed: proc(239, domBandwidth, nothing),
  domainBlockPull: proc(240, domBandwidth, nothing),
  domainBlockRebase: proc(
    266,
    struct({ dom: domain, path: text, base: optionalText, bandwidth: unsignedHyper, flags: unsigned }),
    nothing,
  ),
  domainBlockCommit: proc(
    290,
    struct({ dom: domain, disk: text, base: optionalText, top: optionalText, bandwidth: unsignedHyper, flags: unsigned }),
    nothing,
  ),
  domainBlockCopy: proc(
    345,
    struct({ dom: domain, path: text, xml: text, params: params(limits.few), flags: unsigned }),
    nothing,
  ),
  domainSetBlockThreshold: proc(386, struct({ dom: domain, dev: text, threshold: unsignedHyper, flags: unsigned }), nothing),

  domainMigratePrepare: proc(61, struct({ uriIn: optionalText, ...target }), struct({ cookie, uriOut: optionalText })),
  domainMigratePerform: proc(62, struct({ dom: domain, cookie, uri: text, ...target }), nothing),
  domainMigrateFinish: proc(63, struct({ dname: text, cookie, uri: text, flags: unsignedHyper }), dom),
  domainMigratePrepare2: proc(
    108,
    struct({ uriIn: optionalText, ...target, xml: text }),
    struct({ cookie, uriOut: optionalText }),
  ),
  domainMigrateFinish2: proc(109, struct({ dname: text, cookie, uri: text, flags: unsignedHyper, retcode: int }), dom),
  domainMigratePrepareTunnel: proc(148, struct({ ...target, xml: text }), nothing, { stream: 'to' }),
  domainMigrateBegin3: proc(213, struct({ dom: domain, xmlIn: optionalText, ...target }), begun),
  domainMigratePrepare3: proc(214, struct({ cookieIn: cookie, uriIn: optionalText, ...target, xml: text }), prepared),
  domainMigratePrepareTunnel3: proc(215, struct({ cookieIn: cookie, ...target, xml: text }), cookieOut, { stream: 'to' }),
  domainMigratePerform3: proc(
    216,
    struct({
      dom: domain,
      xmlIn: optionalText,
      cookieIn: cookie,
      dconnUri: optionalText,
      uri: optionalText,
      ...target,
    }),
    cookieOut,
  ),
  domainMigrateFinish3: proc(
    217,
    struct({
      dname: text,
      cookieIn: cookie,
      dconnUri: optionalText,
      uri: optionalText,
      flags: unsignedHyper,
      cancelled: flag,
    }),
    finished,
  ),
  domainMigrateConfirm3: proc(218, struct({ dom: domain, cookieIn: cookie, flags: unsignedHyper, cancelled: flag }), nothing),
  domainMigrateBegin3Params: proc(302, struct({ dom: domain, params: migration, flags: unsigned }), begun),
  domainMigratePrepare3Params: proc(303, struct({ params: migration, cookieIn: cookie, flags: unsigned }), prepared),
  domainMigratePrepareTunnel3Params: proc(304, struct({ params: migration, cookieIn: cookie, flags: unsigned }), cookieOut, {
    stream: 'to',
  }),
  domainMigratePerform3Params: proc(
    305,
    struct({ dom: domain, dconnUri: optionalText, params: migration, cookieIn: cookie, flags: unsigned }),
    cookieOut,
  ),
  domainMigrateFinish3Params: proc(
    306,
    struct({ params: migration, cookieIn: cookie, flags: unsigned, cancelled: flag }),
    finished,
  ),
  domainMigrateConfirm3Params: proc(
    307,
    struct({ dom: domain, params: migration, cookieIn: cookie, flags: unsigned, cancelled: flag }),
    nothing,
  ),
  domainMigrateSetMaxDowntime: proc(166, struct({ dom: domain, downtime: unsignedHyper, flags: unsigned }), nothing),
  domainMigrateGetMaxDowntime: proc(387, domFlags, struct({ downtime: unsignedHyper })),
  /** MiB/s. */
  domainMigrateSetMaxSpeed: proc(207, bandwidth, nothing),
  domainMigrateGetMaxSpeed: proc(242, domFlags, struct({ bandwidth: unsignedHyper })),
  domainMigrateGetCompressionCache: proc(299, domFlags, struct({ cacheSize: unsignedHyper })),
  domainMigrateSetCompressionCache: proc(300, struct({ dom: domain, cacheSize: unsignedHyper, flags: unsigned }), nothing),
  domainMigrateStartPostCopy: proc(364, domFlags, nothing),
} as const;
