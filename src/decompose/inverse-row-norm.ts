import type { InverseRowNormSource } from "../checkpoint/row-source.js";
import { native } from "../native/binding.js";
import type { RowReader } from "./row-source.js";

const VALUES_AT_ONCE = 1024 * 1024;
/** As in torch.nn.functional.normalize. */
const LEAST_NORM = 1e-12;

/** 1 / max(||row||, 1e-12) of each row of a matrix: rows of one float32. */
export class InverseRowNorms implements RowReader {
  readonly rows: number;
  readonly rowBytes = Float32Array.BYTES_PER_ELEMENT;
  readonly rowsAtOnce: number;
  readonly #values: Float32Array;

  constructor(
    private readonly source: InverseRowNormSource,
    private readonly matrix: RowReader,
  ) {
    const { rows, columns } = source;
    this.rows = rows;
    this.rowsAtOnce = Math.max(1, Math.min(matrix.rowsAtOnce, Math.floor(VALUES_AT_ONCE / columns)));
    this.#values = new Float32Array(this.rowsAtOnce * columns);
  }

  read(first: number, count: number): Uint8Array {
    const { columns, format, block = 1 } = this.source;
    native().dequantize(format, this.matrix.read(first, count), count, columns, block, this.#values);
    const factors = new Float32Array(count);
    for (let row = 0; row < count; row++) {
      let sum = 0;
      for (let i = row * columns; i < (row + 1) * columns; i++) sum += (this.#values[i] as number) ** 2;
      factors[row] = 1 / Math.max(Math.sqrt(sum), LEAST_NORM);
    }
    return new Uint8Array(factors.buffer);
  }
}
