import { openLayerStore } from "../checkpoint/layer-store.js";
import { native } from "../native/binding.js";
import type { Stats } from "./contract.js";

/** More than any cache holds. */
const MEMORY_BYTES = 2 ** 28;

/**
 * Raw speed of the disk on the files of the store in `directory`, bytes a second: sequential direct reads, submitted as
 * the engine submits them, for at most `seconds`. Blocks the thread meanwhile.
 */
export async function measureDiskRate(directory: string, seconds: number): Promise<number> {
  const store = await openLayerStore(directory);
  const files = store.manifest.files.filter((file) => file.stages.length > 0);
  return native().measureReadRate(
    files.map((file) => ({ path: store.filePath(file.name), size: file.size })),
    seconds,
  );
}

/**
 * Speed at which the threads of a model whose `stats` these are read memory, bytes a second: no more of it than the model
 * held. Blocks the thread for `seconds` and as long as it takes to touch the memory.
 */
export function measureMemoryRate({ heldBytes, threads }: Stats, seconds: number): number {
  return native().measureMemoryRate(Math.max(2 ** 20, Math.min(heldBytes, MEMORY_BYTES)), threads, seconds);
}

/** From pinned memory to a device, bytes a second; 0 where nothing is copied. Blocks the thread for `seconds`. */
export function measureCopyRate(device: string, seconds: number): number {
  return native().measureCopyRate(device, seconds);
}

/** Of a device with memory of its own, bytes a second: copies to it, and its memory. Takes twice `seconds`, blocking. */
export function measureDeviceRates(device: string, seconds: number) {
  return native().measureDevice(device, seconds, 1);
}

/** Floating point operations a second; 0 in bfloat16 where the processor has no such instruction. */
export interface ArithmeticPeaks {
  float32: number;
  bfloat16: number;
}

/** What `threads` threads do at most. Blocks the thread for half a second. */
export function measureArithmeticPeaks(threads: number): ArithmeticPeaks {
  const seconds = 0.25;
  return {
    float32: native().measurePeakRate("f32", threads, seconds),
    bfloat16: native().measurePeakRate("bf16", threads, seconds),
  };
}
