/** Bytes in the place of a file. A reader that asks for more than there is has failed. */
export function memoryFile(bytes) {
  const read = async (offset, length) => {
    const isInside = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (!isInside || offset + length > bytes.length) {
      throw new Error(`asks for ${length} bytes at ${offset} of ${bytes.length}`);
    }
    return Buffer.from(bytes.subarray(offset, offset + length));
  };
  return { file: "fuzz", size: bytes.length, read };
}

/** @throws Error if a tensor that a reader found does not lie in the file. */
export function checkTensors(tensors, size) {
  for (const { name, offset, byteLength } of tensors.values()) {
    const isInside = Number.isSafeInteger(offset) && offset >= 0 && byteLength >= 0 && offset + byteLength <= size;
    if (!isInside) throw new Error(`${name} at ${offset}, ${byteLength} bytes, leaves the file of ${size}`);
  }
}
