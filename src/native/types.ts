/** The addon's contract. `binding.ts` is the only loader. */

export type ElementFormat = "f32" | "f16" | "bf16";
export type QuantizedFormat = "8bit" | "4bit";
export type WeightFormat = ElementFormat | QuantizedFormat;

export interface NativeCodec {
  /** CRC-32C (Castagnoli) of `data`. */
  crc32c(data: Uint8Array): number;
  /** Bytes of one row of `columns` weights. */
  rowBytes(format: WeightFormat, columns: number, block: number): number;
  /**
   * Quantizes whole rows, single-threaded. `output` holds rows * rowBytes bytes. False if a value is NaN or
   * infinite or a block's scale does not fit in float16.
   */
  quantize(
    sourceFormat: ElementFormat,
    source: Uint8Array,
    rows: number,
    columns: number,
    format: QuantizedFormat,
    block: number,
    output: Uint8Array,
  ): boolean;
  /** `output` is [rows, columns] float32. */
  dequantize(format: WeightFormat, data: Uint8Array, rows: number, columns: number, block: number, output: Float32Array): void;
}

export type NativeAddon = NativeCodec;
