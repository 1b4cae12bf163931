import type { RowSource } from "../checkpoint/row-source.js";
import { InverseRowNorms } from "./inverse-row-norm.js";
import { ColumnOrder, openPackedRows } from "./packed/packed-rows.js";
import type { RowReader, Workspace } from "./row-source.js";
import { StridedRows } from "./strided-rows.js";

/** Readers of one workspace take turns: what `read` gave is lost when another one reads. */
export function openRows(source: RowSource, workspace: Workspace): RowReader {
  switch (source.kind) {
    case "strided":
      return new StridedRows(source, workspace);
    case "inverseRowNorm":
      return new InverseRowNorms(source, openRows(source.of, workspace));
    case "packed":
      return openPackedRows(source, workspace);
    case "columnOrder":
      return new ColumnOrder(source, workspace);
  }
}
