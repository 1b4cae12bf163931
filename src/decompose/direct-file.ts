/** Files read and written past the page cache where the system allows it: many times less work for the processor. */
import { constants, openSync } from "node:fs";
import { errnoOf } from "../checkpoint/file-io.js";
import { PAGE_BYTES } from "../checkpoint/manifest.js";

export function floorToPage(bytes: number): number {
  return bytes - (bytes % PAGE_BYTES);
}

export function ceilToPage(bytes: number): number {
  return floorToPage(bytes + PAGE_BYTES - 1);
}

/** Undefined where the platform, or the file system that `file` lies on, has no direct access. */
export function openDirect(file: string, flags: number): number | undefined {
  if (!constants.O_DIRECT) return undefined;
  try {
    return openSync(file, flags | constants.O_DIRECT);
  } catch (error) {
    if (isDirectRefused(error)) return undefined;
    throw error;
  }
}

/** Some file systems open a file for direct access and then refuse the access. */
export function isDirectRefused(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === "EINVAL" || errno === "ENOTSUP" || errno === "EOPNOTSUPP";
}
