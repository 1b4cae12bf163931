/** The part of the addon's contract that is about devices: which there are, and how fast they are. */
import type { WeightFormat } from "./types.js";

export interface NativeDevice {
  /** As `createModel` takes it: "cpu", "opencl" for its first device, "opencl:1" for the next. */
  name: string;
  backend: string;
  index: number;
  /** Why it cannot be used here, and what to do about it; then the rest is absent. */
  reason?: string;
  /** The kernels that it runs, or what it is called. */
  kernels?: string;
  kind?: "processor" | "gpu";
  /** Version of its driver; empty where there is none. */
  driver?: string;
  /** Of its own; 0: the host's. */
  memoryBytes?: number;
  /** Its memory is that of the host, and nothing is copied. */
  unified?: boolean;
}

export interface NativeDevices {
  /**
   * Every device of every backend, the best of a backend first; of a backend without any, one with the reason. Opens
   * none, but loads drivers.
   */
  devices(): NativeDevice[];
  /** Opens the device. Of its own memory, that can be allocated now; 0: it uses the host's. @throws DEVICE_UNAVAILABLE */
  deviceFreeBytes(name: string): number;
  /** Of a device's own memory, what ops take beside what they are given, where no matrix has more columns. */
  deviceScratchBytes(name: string, columns: number): number;
  /** Opens the device, so that opening it again takes no time, until the function that is returned is called. @throws DEVICE_UNAVAILABLE */
  holdDevice(name: string): () => void;
  /**
   * Has a device that is behind a driver compute what nearly every model needs, beside the processor. It keeps what it compiles
   * in `kernelDirectory`. @throws DEVICE_UNAVAILABLE with the first value that is wrong
   */
  checkDevice(name: string, kernelDirectory: string): void;
}

export interface NativeDeviceRates {
  /** Of its own memory, that can be allocated now; 0: it uses the host's. */
  freeBytes: number;
  /** From pinned memory of the host to the device; 0 where nothing is copied. */
  copyBytesPerSecond: number;
  /** Of its memory: what threads read, or what copies within it read and write. */
  memoryBytesPerSecond: number;
}

export interface NativeMeasure {
  /** The kernels that the CPU device uses here. @throws INVALID_ARGUMENT for a LAYERSTREAM_SIMD that does not run here */
  cpuKernels(): string;
  /**
   * Reads the files with direct reads, as the engine does, for at most `seconds`. Blocks the calling thread.
   * Bytes a second.
   */
  measureReadRate(files: readonly { path: string; size: number }[], seconds: number): number;
  /** Bytes a second from pinned memory to a device. Blocks for `seconds`; 0 where nothing is copied. */
  measureCopyRate(name: string, seconds: number): number;
  /** Opens the device and measures twice for `seconds`; a processor with `threads` threads. Blocks. @throws DEVICE_UNAVAILABLE */
  measureDevice(name: string, seconds: number, threads: number): NativeDeviceRates;
  /** Bytes a second that `threads` threads read from memory together, over a buffer of `bytes`. Blocks. */
  measureMemoryRate(bytes: number, threads: number, seconds: number): number;
  /**
   * The most floating point operations a second that `threads` threads do together without touching memory: multiply-adds
   * (two operations each) of float32, or of pairs of bfloat16 (`vdpbf16ps`); 0 where the processor has none of these. Blocks.
   */
  measurePeakRate(kind: "f32" | "bf16", threads: number, seconds: number): number;
  /**
   * Multiplies random weights of the format with `tokens` tokens on `threads` threads, through matrices that together
   * exceed the caches. Blocks. Bytes of weights a second.
   */
  measureMatmulRate(
    format: WeightFormat,
    rows: number,
    columns: number,
    block: number,
    tokens: number,
    threads: number,
    seconds: number,
    exact: boolean,
  ): number;
}
