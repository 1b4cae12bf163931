import { native } from "../native/binding.js";

/** CRC-32C of `data` as 8 hex digits: how manifests and journals write checksums. */
export function checksumOf(data: Uint8Array): string {
  return native().crc32c(data).toString(16).padStart(8, "0");
}
