/** Memory that grows to the largest size asked for, and is used again. */
export class Scratch {
  #memory = new ArrayBuffer(0);

  /** Valid until the next call. Content is arbitrary. */
  take(bytes: number): Uint8Array {
    if (this.#memory.byteLength < bytes) this.#memory = new ArrayBuffer(bytes);
    return new Uint8Array(this.#memory, 0, bytes);
  }
}
