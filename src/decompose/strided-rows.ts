/** Rows of plain elements at any strides: views of rows, transposed matrices, tensors that share a storage. */
import { countRows, type RowDimensions, type StridedSource } from "../checkpoint/row-source.js";
import type { RowReader, Workspace } from "./row-source.js";

/** Bytes that nobody wants are read along up to this length, since another read takes as long. */
const SKIPPED_BYTES = 64 * 1024;
/** Output of one read where rows lie across the file: every such read passes over all of it. */
const STRIP_BYTES = 16 * 1024 * 1024;
/** Most rows of one read, each of which is placed by a number. */
const ROWS_AT_ONCE = 64 * 1024;
/** Side of the squares in which elements are transposed, so that lines of both sides stay in the cache. */
const TILE = 64;

type Elements = Uint8Array | Uint16Array | Uint32Array;

/** A range of the file that holds the elements of `count` lines, the first of them `first`. */
interface Span {
  first: number;
  count: number;
  begin: number;
  end: number;
}

/** Bytes of the source's whole matrix, if they lie in the file as they are stored. */
export function contiguousRange(source: StridedSource): { offset: number; byteLength: number } | undefined {
  const { offset, elementBytes, columns, columnStride } = source;
  const rowBytes = columns * elementBytes;
  const [[, stride] = [1, rowBytes], ...others] = mergeDimensions(source.rowDims);
  const isContiguous = (columns === 1 || columnStride === elementBytes) && stride === rowBytes && others.length === 0;
  return isContiguous ? { offset, byteLength: countRows(source.rowDims) * rowBytes } : undefined;
}

/** Without dimensions of one row, and with those joined that step on as one. */
function mergeDimensions(dims: RowDimensions): [count: number, stride: number][] {
  const merged: [number, number][] = [];
  for (const [count, stride] of dims) {
    const outer = merged.at(-1);
    if (count === 1) continue;
    if (outer && outer[1] === count * stride) merged[merged.length - 1] = [outer[0] * count, stride];
    else merged.push([count, stride]);
  }
  return merged;
}

export class StridedRows implements RowReader {
  readonly rows: number;
  readonly rowBytes: number;
  readonly rowsAtOnce: number;
  readonly #dims: RowDimensions;
  readonly #isContiguous: boolean;
  /** Neighbours in the file are elements of one column, not of one row. */
  readonly #isTransposed: boolean;

  constructor(
    private readonly source: StridedSource,
    private readonly workspace: Workspace,
  ) {
    const { capacity } = workspace.reader;
    const { columns, elementBytes, columnStride, rowDims } = source;
    this.rows = countRows(rowDims);
    this.rowBytes = columns * elementBytes;
    this.#dims = mergeDimensions(rowDims);
    const lastStride = this.#dims.at(-1)?.[1] ?? Number.POSITIVE_INFINITY;
    this.#isTransposed = columns > 1 && columnStride > lastStride;
    this.#isContiguous = contiguousRange(source) !== undefined && this.rowBytes <= capacity;
    const bytes = this.#isTransposed ? STRIP_BYTES : capacity;
    const rowsAtOnce = Math.min(this.rows, this.#isContiguous ? this.rows : ROWS_AT_ONCE, bytes / this.rowBytes);
    this.rowsAtOnce = Math.max(1, Math.floor(rowsAtOnce));
  }

  read(first: number, count: number): Uint8Array {
    const { file, offset, name } = this.source;
    if (this.#isContiguous) {
      const [begin, end] = [offset + first * this.rowBytes, offset + this.rows * this.rowBytes];
      return this.workspace.reader.read(file, begin, count * this.rowBytes, name, end);
    }
    const output = this.workspace.scratch.take(count * this.rowBytes);
    const places = new Float64Array(count);
    for (let row = 0; row < count; row++) places[row] = this.#placeOf(first + row);
    if (this.#isTransposed) this.#readStrips(places, output);
    else this.#readRows(places, output);
    return output;
  }

  /** Bytes from row 0 to a row. */
  #placeOf(row: number): number {
    let rest = row;
    let place = 0;
    for (let i = this.#dims.length - 1; i >= 0; i--) {
      const [count, stride] = this.#dims[i] as readonly [number, number];
      place += (rest % count) * stride;
      rest = Math.floor(rest / count);
    }
    return place;
  }

  #readRows(places: Float64Array, output: Uint8Array): void {
    const { columns, columnStride, elementBytes } = this.source;
    const columnsAtOnce = Math.min(
      columns,
      Math.floor((this.workspace.reader.capacity - elementBytes) / columnStride) + 1,
    );
    for (let column = 0; column < columns; column += columnsAtOnce) {
      const count = Math.min(columnsAtOnce, columns - column);
      const length = (count - 1) * columnStride + elementBytes;
      const lineOf = (row: number) => (places[row] as number) + column * columnStride;
      for (const span of this.#spans(places.length, lineOf, length)) {
        const rows = places.subarray(span.first, span.first + span.count);
        this.#copy(span, rows, column, count, output, span.first);
      }
    }
  }

  /** Runs of rows that are near one another within each column, so that a line of the file holds an element of each. */
  #readStrips(places: Float64Array, output: Uint8Array): void {
    const { columns, columnStride, elementBytes } = this.source;
    const widest = Math.min(columnStride, this.workspace.reader.capacity);
    for (let first = 0; first < places.length; ) {
      const strip = spanFrom(first, places.length, (row) => places[row] as number, elementBytes, widest, widest);
      const rows = places.subarray(first, first + strip.count);
      const lineOf = (column: number) => strip.begin + column * columnStride;
      for (const span of this.#spans(columns, lineOf, strip.end - strip.begin)) {
        this.#copy(span, rows, span.first, span.count, output, first);
      }
      first += strip.count;
    }
  }

  #spans(count: number, lineOf: (line: number) => number, length: number): Span[] {
    const spans: Span[] = [];
    for (let first = 0; first < count; ) {
      const span = spanFrom(first, count, lineOf, length, this.workspace.reader.capacity, SKIPPED_BYTES);
      spans.push(span);
      first += span.count;
    }
    return spans;
  }

  /** Reads a span, and puts the elements of rows at `places` and of `count` columns where they belong. */
  #copy(span: Span, places: Float64Array, column: number, count: number, output: Uint8Array, outputRow: number): void {
    const { file, offset, name, elementBytes, columns, columnStride } = this.source;
    const bytes = this.workspace.reader.read(file, offset + span.begin, span.end - span.begin, name);
    const start = column * columnStride - span.begin;
    if (columnStride === elementBytes && elementBytes * count > TILE) {
      for (let row = 0; row < places.length; row++) {
        const from = (places[row] as number) + start;
        const into = ((outputRow + row) * columns + column) * elementBytes;
        output.set(bytes.subarray(from, from + count * elementBytes), into);
      }
      return;
    }
    const from = elementsOf(bytes, elementBytes);
    const into = elementsOf(output, elementBytes);
    const step = columnStride / elementBytes;
    for (let rowTile = 0; rowTile < places.length; rowTile += TILE) {
      const rowEnd = Math.min(rowTile + TILE, places.length);
      for (let columnTile = 0; columnTile < count; columnTile += TILE) {
        const columnEnd = Math.min(columnTile + TILE, count);
        for (let row = rowTile; row < rowEnd; row++) {
          const line = ((places[row] as number) + start) / elementBytes;
          const target = (outputRow + row) * columns + column;
          for (let c = columnTile; c < columnEnd; c++) into[target + c] = from[line + c * step] as number;
        }
      }
    }
  }
}

/** As many lines from `first` on as one read of `capacity` bytes may cover with no gap above `gap`. */
function spanFrom(
  first: number,
  count: number,
  lineOf: (line: number) => number,
  length: number,
  capacity: number,
  gap: number,
): Span {
  let begin = lineOf(first);
  let end = begin + length;
  let line = first + 1;
  for (; line < count; line++) {
    const place = lineOf(line);
    if (place - end > gap || begin - (place + length) > gap) break;
    const [newBegin, newEnd] = [Math.min(begin, place), Math.max(end, place + length)];
    if (newEnd - newBegin > capacity) break;
    [begin, end] = [newBegin, newEnd];
  }
  return { first, count: line - first, begin, end };
}

/** The bytes as elements. Where they do not start on a whole one they are moved within their buffer. */
function elementsOf(bytes: Uint8Array, elementBytes: number): Elements {
  if (elementBytes === 1) return bytes;
  const misplaced = bytes.byteOffset % elementBytes;
  if (misplaced !== 0) new Uint8Array(bytes.buffer, bytes.byteOffset - misplaced, bytes.length).set(bytes);
  const count = bytes.length / elementBytes;
  const start = bytes.byteOffset - misplaced;
  return elementBytes === 2 ? new Uint16Array(bytes.buffer, start, count) : new Uint32Array(bytes.buffer, start, count);
}
