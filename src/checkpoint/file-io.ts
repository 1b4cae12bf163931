import { type FileHandle, open, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type ErrorCode, LayerstreamError } from "../errors.js";

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

const WRITE_ERRORS: Record<string, [code: ErrorCode, what: string, remedy: string]> = {
  ENOSPC: ["NO_SPACE", "the disk is full", "Free some space and run the same command again: finished files are kept."],
  EDQUOT: [
    "NO_SPACE",
    "the disk quota is used up",
    "Free some space and run the same command again: finished files are kept.",
  ],
  EFBIG: ["NO_SPACE", "the file is too large for this file system", "Write to a file system without that limit."],
  EACCES: ["NOT_WRITABLE", "permission denied", "Choose a directory that you may write to."],
  EPERM: ["NOT_WRITABLE", "operation not permitted", "Choose a directory that you may write to."],
  EROFS: ["NOT_WRITABLE", "the file system is read-only", "Choose a directory that you may write to."],
  ENOTDIR: ["NOT_WRITABLE", "a part of the path is not a directory", "Choose another directory."],
};

/**
 * Turns an error of the operating system into one with a stable code. LayerstreamErrors pass unchanged; mistakes of the
 * program's own are no fault of the disk.
 */
export function ioError(cause: unknown, action: "read" | "write", file: string, offset?: number): LayerstreamError {
  if (cause instanceof LayerstreamError) return cause;
  const errno = errnoOf(cause);
  if (errno === undefined && (cause instanceof TypeError || cause instanceof ReferenceError)) {
    return new LayerstreamError("INTERNAL", `${file}: ${cause.message}.`, { file, offset, cause });
  }
  const known = action === "write" && errno ? WRITE_ERRORS[errno] : undefined;
  const where = offset === undefined ? file : `${file} at byte ${offset}`;
  if (known) {
    const [code, what, remedy] = known;
    return new LayerstreamError(code, `Cannot write ${where}: ${what}.`, { file, offset, cause, remedy });
  }
  const reason = errno ?? (cause instanceof Error ? cause.message : String(cause));
  return new LayerstreamError("IO_ERROR", `Cannot ${action} ${where}: ${reason}.`, {
    file,
    offset,
    cause,
    remedy: "Check the disk and the path, then try again.",
  });
}

/** Fills `buffer` from `position`. Returns the bytes read, fewer only at the end of the file. */
export async function readFully(handle: FileHandle, buffer: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < buffer.length) {
    const { bytesRead } = await handle.read(buffer, done, buffer.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

/** Makes renames and removals in `directory` durable. Windows has no such operation and needs none. */
export async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces `file` in one step: after a crash it holds either what it held before or all of `data`, which may come in parts. */
export async function writeFileAtomic(file: string, data: string | Iterable<string>): Promise<void> {
  const temporary = `${file}.tmp`;
  try {
    const handle = await open(temporary, "w");
    try {
      await writeFile(handle, data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    await syncDirectory(dirname(file));
  } catch (error) {
    await rm(temporary, { force: true });
    throw ioError(error, "write", file);
  }
}
