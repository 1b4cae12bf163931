import type { RowSource } from "../checkpoint/row-source.js";
import type { FileRange } from "./block-reader.js";
import type { Segment } from "./layout.js";
import { contiguousRange } from "./strided-rows.js";

/** What is read after segment `index`, if that is one range of a file. */
export function followingRange(segments: readonly Segment[], index: number): FileRange | undefined {
  for (const segment of segments.slice(index + 1)) {
    if (segment.kind === "copy")
      return { file: segment.source, offset: segment.offset, byteLength: segment.byteLength };
    if (segment.kind !== "padding") return rangeOf(segment.source);
  }
  return undefined;
}

/** What the rows of `source` are read from, if that is one range of a file. */
export function rangeOf(source: RowSource): FileRange | undefined {
  const range = source.kind === "strided" ? contiguousRange(source) : undefined;
  return range && source.kind === "strided" ? { file: source.file, ...range } : undefined;
}
