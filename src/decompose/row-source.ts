/** The rows of a stored tensor, one after the other, whatever the checkpoint holds them in. */

/** Reads whole rows into memory of its own, whose size does not depend on how many rows there are. */
export interface RowReader {
  readonly rows: number;
  readonly rowBytes: number;
  /** The most that `read` gives, at least 1. */
  readonly rowsAtOnce: number;
  /**
   * Rows `first` to `first + count - 1`, contiguous; valid until the next read.
   * @throws IO_ERROR naming file and offset
   */
  read(first: number, count: number): Uint8Array;
  close(): void;
}
