/** Rows of a compressed tensor, by lz4-napi instead of the addon. */
import { uncompressSync } from "lz4-napi";
import type { StoredTensor } from "../../dist/checkpoint/manifest.js";

export function uncompressBlocks(stored: Buffer, { rowBytes, shape, lz4 }: StoredTensor): Buffer {
  if (!lz4) throw new Error("The tensor has no LZ4 blocks.");
  const [rows = 0] = shape;
  let begin = 0;
  const blocks = lz4.bytes.map((bytes, block) => {
    const plain = Math.min(lz4.rows, rows - block * lz4.rows) * rowBytes;
    const data = stored.subarray(begin, begin + bytes);
    begin += bytes;
    if (bytes === plain) return data;
    const prefix = Buffer.alloc(4);
    prefix.writeUInt32LE(plain);
    return uncompressSync(Buffer.concat([prefix, data]));
  });
  return Buffer.concat(blocks);
}
