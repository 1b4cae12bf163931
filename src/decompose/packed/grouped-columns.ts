import type { PackedSource } from "../../checkpoint/row-source.js";
import { sortColumns, toGroupIndex } from "../../quant/methods/group-order.js";
import type { Workspace } from "../row-source.js";
import { parameterOf, partOf, readWhole } from "./code-reader.js";

/** Which columns share a scale, and where columns are stored: as `ScaledCodes` and `packRows` have it. */
export interface GroupedColumns {
  block: number;
  groupOf?: Uint32Array;
  order?: Uint32Array;
}

/** Groups of the checkpoint's columns where rows are expanded, else of the columns as they are stored. */
export function groupedColumns(source: PackedSource, workspace: Workspace): GroupedColumns {
  if (!source.parts.groupIndex) return { block: parameterOf(source, "groupSize") };
  const groupIndex = toGroupIndex(readWhole(partOf(source, "groupIndex"), workspace));
  if (source.format === "f32") return { block: 1, groupOf: Uint32Array.from(groupIndex) };
  return sortColumns(groupIndex, parameterOf(source, "groups"));
}
