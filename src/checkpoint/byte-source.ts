import { type FileHandle, open } from "node:fs/promises";
import { LayerstreamError } from "../errors.js";
import { ioError, readFully } from "./file-io.js";

/** A file whose header is read, or bytes in memory in its place. */
export interface ByteSource {
  /** Named in errors. */
  readonly file: string;
  readonly size: number;
  /** Exactly `length` bytes. The caller has compared both numbers with `size`. @throws IO_ERROR */
  read(offset: number, length: number): Promise<Buffer>;
}

/** What a clone without Git LFS has in place of a large file begins with this, and is small. */
const POINTER_START = "version https://git-lfs.github.com/spec/";
const MAX_POINTER_BYTES = 1024;

/** @throws IO_ERROR, CHECKPOINT_NOT_FOUND for a pointer of Git LFS, and what `use` throws. */
export async function withFile<T>(file: string, use: (source: ByteSource) => Promise<T>): Promise<T> {
  let handle: FileHandle;
  try {
    handle = await open(file, "r");
  } catch (error) {
    throw ioError(error, "read", file);
  }
  try {
    const { size } = await handle.stat();
    const read = async (offset: number, length: number) => {
      const bytes = Buffer.alloc(length);
      const done = await readFully(handle, bytes, offset);
      if (done === length) return bytes;
      throw new LayerstreamError("IO_ERROR", `${file} ended at byte ${offset + done}: it became shorter.`, {
        file,
        offset: offset + done,
        remedy: "Restore the file and try again.",
      });
    };
    await refusePointer({ file, size, read });
    return await use({ file, size, read });
  } catch (error) {
    throw ioError(error, "read", file);
  } finally {
    await handle.close();
  }
}

async function refusePointer({ file, size, read }: ByteSource): Promise<void> {
  if (size < POINTER_START.length || size > MAX_POINTER_BYTES) return;
  if ((await read(0, POINTER_START.length)).toString("latin1") !== POINTER_START) return;
  throw new LayerstreamError("CHECKPOINT_NOT_FOUND", `${file} is a pointer of Git LFS instead of the file itself.`, {
    file,
    remedy: "Fetch it with: git lfs pull",
  });
}
