/** The rows of a stored tensor, one after the other, whatever the checkpoint holds them in. */
import type { BlockReader } from "./block-reader.js";
import type { Scratch } from "./scratch.js";

/** Files and memory of one thread, used by one reader after the other. */
export interface Workspace {
  reader: BlockReader;
  scratch: Scratch;
}

/** Reads whole rows into the workspace's memory, of which it needs no more for more rows. */
export interface RowReader {
  readonly rows: number;
  readonly rowBytes: number;
  /** The most that one `read` may ask for, at least 1. */
  readonly rowsAtOnce: number;
  /**
   * Rows `first` to `first + count - 1`, contiguous; valid until the next read.
   * @throws IO_ERROR naming file and offset
   */
  read(first: number, count: number): Uint8Array;
}
