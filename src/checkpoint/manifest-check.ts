/** What the parts of a manifest must say about one another, so that its readers can trust every number in it. */
import { LayerstreamError } from "../errors.js";
import { formatOf } from "../quant/registry.js";
import {
  CHECKSUM_BLOCK_BYTES,
  LZ4_BLOCK_BYTES_MAX,
  type Manifest,
  PAGE_BYTES,
  type StoredFile,
  type StoredTensor,
} from "./manifest.js";
import { manifestSchema } from "./manifest-schema.js";

const COLUMN_NUMBER_BYTES = 4;
/** A byte of an LZ4 block stands for at most so many: no small file makes a reader take much memory. */
const LZ4_LARGEST_RATIO = 255;

/** @throws STORE_INVALID naming what is wrong. `file` is the manifest's path. */
export function checkManifest(value: unknown, file: string): Manifest {
  const parsed = manifestSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw invalid(file, `${issue?.path.join(".") || "the whole"}: ${issue?.message}`);
  }
  const manifest = parsed.data;
  const problem = firstProblem(manifest);
  if (problem) throw invalid(file, problem);
  return manifest;
}

function invalid(file: string, what: string): LayerstreamError {
  return new LayerstreamError("STORE_INVALID", `${file} is not a valid manifest (${what}).`, {
    file,
    remedy: "Decompose the checkpoint again.",
  });
}

function firstProblem(manifest: Manifest): string | undefined {
  const fileNames = new Set<string>();
  const tensorNames = new Set<string>();
  for (const file of manifest.files) {
    if (fileNames.has(file.name)) return `file ${file.name} is listed twice`;
    fileNames.add(file.name);
    const problem = fileProblem(file, tensorNames);
    if (problem) return `${file.name}: ${problem}`;
  }
  return undefined;
}

function fileProblem(file: StoredFile, tensorNames: Set<string>): string | undefined {
  const blocks = Math.ceil(file.size / CHECKSUM_BLOCK_BYTES);
  if (file.checksums.length !== blocks * 8) {
    return `${file.size} bytes need ${blocks} checksums, not ${file.checksums.length / 8}`;
  }
  let position = 0;
  for (const stage of file.stages) {
    const label = `stage ${stage.name} of layer ${stage.layer}`;
    if (stage.offset % PAGE_BYTES !== 0 || stage.length % PAGE_BYTES !== 0) {
      return `${label} is not on whole pages: offset ${stage.offset}, length ${stage.length}`;
    }
    const end = stage.offset + stage.length;
    if (stage.offset < position || end > file.size) {
      return `${label}, bytes ${stage.offset} to ${end}, overlaps another or leaves the file of ${file.size} bytes`;
    }
    position = stage.offset;
    for (const tensor of stage.tensors) {
      if (tensorNames.has(tensor.name)) return `tensor ${tensor.name} is listed twice`;
      tensorNames.add(tensor.name);
      const problem = sizeProblem(tensor);
      if (problem) return `tensor ${tensor.name} ${problem}`;
      if (tensor.offset < position || tensor.offset + tensor.byteLength > end) {
        return `tensor ${tensor.name} at byte ${tensor.offset} overlaps another or leaves its stage`;
      }
      position = tensor.offset + tensor.byteLength;
    }
    for (const { name, shape, columnOrder } of stage.tensors) {
      if (columnOrder === undefined) continue;
      if (shape.length !== 2) return `vector ${name} has an order of columns`;
      const orderEnd = columnOrder + (shape[1] as number) * COLUMN_NUMBER_BYTES;
      if (columnOrder < position || columnOrder % COLUMN_NUMBER_BYTES !== 0 || orderEnd > end) {
        return `the order of columns of ${name}, at byte ${columnOrder}, overlaps another tensor or leaves its stage`;
      }
      position = orderEnd;
    }
    position = end;
  }
  return undefined;
}

function sizeProblem(tensor: StoredTensor): string | undefined {
  const format = formatOf(tensor.format);
  const [first = 0, second] = tensor.shape;
  const [rows, columns] = second === undefined ? [1, first] : [first, second];
  if (!format.blockFits(columns, tensor.block)) return `is ${tensor.format} with a wrong block`;
  if (tensor.block !== undefined && second === undefined) return "is a quantized vector";
  const rowBytes = format.rowBytes(columns, tensor.block);
  if (tensor.lz4 !== undefined) return lz4Problem(tensor, rows, rowBytes);
  if (tensor.rowBytes !== rowBytes || tensor.byteLength !== rows * rowBytes) {
    return `has ${tensor.byteLength} bytes in rows of ${tensor.rowBytes}; ${tensor.format} [${tensor.shape.join(", ")}] takes ${rows} rows of ${rowBytes}`;
  }
  return undefined;
}

function lz4Problem(tensor: StoredTensor, rows: number, rowBytes: number): string | undefined {
  const { lz4 = { rows: 1, bytes: [] }, byteLength } = tensor;
  const blocks = Math.ceil(rows / lz4.rows);
  if (tensor.shape.length !== 2) return "is a compressed vector";
  if (tensor.rowBytes !== rowBytes) return `has rows of ${tensor.rowBytes} bytes; ${tensor.format} takes ${rowBytes}`;
  if (lz4.bytes.length !== blocks) return `has ${lz4.bytes.length} LZ4 blocks where ${rows} rows need ${blocks}`;
  const blockBytes = lz4.rows * rowBytes;
  const largest = Math.min(blockBytes, rows * rowBytes);
  if (largest > Math.max(LZ4_BLOCK_BYTES_MAX, rowBytes)) return `has LZ4 blocks of ${largest} bytes, too many`;
  if (blocks > 1 && blockBytes % PAGE_BYTES !== 0) return `has LZ4 blocks of ${blockBytes} bytes, not whole pages`;
  let total = 0;
  for (const [block, bytes] of lz4.bytes.entries()) {
    const plain = Math.min(blockBytes, rows * rowBytes - block * blockBytes);
    if (bytes > plain || bytes * LZ4_LARGEST_RATIO < plain) return `has an LZ4 block of ${bytes} bytes for ${plain}`;
    total += bytes;
  }
  return total === byteLength ? undefined : `has ${byteLength} bytes but LZ4 blocks of ${total}`;
}
