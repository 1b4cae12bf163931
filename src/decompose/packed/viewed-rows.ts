import { countRows, type RowDimensions } from "../../checkpoint/row-source.js";
import type { RowReader } from "../row-source.js";
import { Scratch } from "../scratch.js";

/** Rows that nobody wants are read along up to this many, since another read takes as long. */
const SKIPPED_ROWS = 8;
const OUTPUT_BYTES = 4 * 1024 * 1024;

/** Some rows of a matrix: row r is the sum of the digits of r, each times its stride, and the offset. */
export class ViewedRows implements RowReader {
  readonly rows: number;
  readonly rowBytes: number;
  readonly rowsAtOnce: number;
  readonly #memory = new Scratch();

  constructor(
    private readonly matrix: RowReader,
    private readonly view: { offset: number; dims: RowDimensions },
  ) {
    this.rows = countRows(view.dims);
    this.rowBytes = matrix.rowBytes;
    this.rowsAtOnce = matrix.rowsAtOnce;
  }

  read(first: number, count: number): Uint8Array {
    const { matrix, rowBytes } = this;
    const output = this.#memory.take(count * rowBytes);
    for (let row = 0; row < count; ) {
      const begin = this.#placeOf(first + row);
      const places = [begin];
      for (let last = begin; row + places.length < count; ) {
        const place = this.#placeOf(first + row + places.length);
        if (place <= last || place - last > SKIPPED_ROWS || place - begin >= matrix.rowsAtOnce) break;
        places.push(place);
        last = place;
      }
      const bytes = matrix.read(begin, (places.at(-1) as number) - begin + 1);
      for (const place of places) {
        const start = (place - begin) * rowBytes;
        output.set(bytes.subarray(start, start + rowBytes), row++ * rowBytes);
      }
    }
    return output;
  }

  #placeOf(row: number): number {
    let rest = row;
    let place = this.view.offset;
    for (const [count, stride] of [...this.view.dims].reverse()) {
      place += (rest % count) * stride;
      rest = Math.floor(rest / count);
    }
    return place;
  }
}

/** The first rows of each group of float32 rows, transposed: row g * columns + c is column c of group g. */
export class TransposedGroups implements RowReader {
  readonly rows: number;
  readonly rowBytes: number;
  readonly rowsAtOnce: number;
  readonly #memory = new Scratch();

  constructor(
    private readonly matrix: RowReader,
    private readonly columns: number,
    private readonly groups: { stride: number; rows: number },
  ) {
    this.rows = (matrix.rows / groups.stride) * columns;
    this.rowBytes = groups.rows * Float32Array.BYTES_PER_ELEMENT;
    this.rowsAtOnce = Math.max(1, Math.floor(OUTPUT_BYTES / this.rowBytes));
  }

  read(first: number, count: number): Uint8Array {
    const { columns, groups } = this;
    const output = this.#memory.take(count * this.rowBytes);
    const values = new Float32Array(output.buffer, output.byteOffset, count * groups.rows);
    for (let done = 0; done < count; ) {
      const column = (first + done) % columns;
      const taken = Math.min(columns - column, count - done);
      const group = Math.floor((first + done) / columns) * groups.stride;
      this.#transpose(group, column, taken, values.subarray(done * groups.rows));
      done += taken;
    }
    return output;
  }

  #transpose(group: number, column: number, count: number, output: Float32Array): void {
    const { columns, groups, matrix } = this;
    for (let row = 0; row < groups.rows; row += matrix.rowsAtOnce) {
      const batch = Math.min(matrix.rowsAtOnce, groups.rows - row);
      const bytes = matrix.read(group + row, batch);
      const source = new Float32Array(bytes.buffer, bytes.byteOffset, batch * columns);
      for (let r = 0; r < batch; r++) {
        for (let c = 0; c < count; c++) output[c * groups.rows + row + r] = source[r * columns + column + c] as number;
      }
    }
  }
}
