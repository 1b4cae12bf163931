import type { RowSource } from "../checkpoint/row-source.js";
import { LayerstreamError } from "../errors.js";
import { InverseRowNorms } from "./inverse-row-norm.js";
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
      throw new LayerstreamError("INTERNAL", `There is no reader of "${source.method}", which "${source.name}" needs.`);
  }
}
