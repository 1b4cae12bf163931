/** Stable identifiers of everything that can go wrong. Programs test `error.code`; people read `error.message`. */
export type ErrorCode =
  | "INVALID_ARGUMENT"
  | "NATIVE_ADDON_MISSING"
  | "CHECKPOINT_NOT_FOUND"
  | "CONFIG_INVALID"
  | "UNSUPPORTED_MODEL"
  | "SAFETENSORS_INVALID"
  | "GGUF_INVALID"
  | "SHARD_INDEX_INVALID"
  | "PICKLE_INVALID"
  | "PICKLE_REFUSED"
  | "ARCHIVE_INVALID"
  | "TENSOR_MISSING"
  | "TENSOR_MISMATCH"
  | "UNSAFE_PATH"
  | "QUANTIZATION_FAILED"
  | "LORA_INVALID"
  | "STORE_INVALID"
  | "STORE_LOCKED"
  | "STORE_CORRUPT"
  | "STORE_OUTDATED"
  | "NO_SPACE"
  | "NOT_WRITABLE"
  | "IO_ERROR"
  | "TOKENIZER_MISSING"
  | "TOKENIZER_INVALID"
  | "CHAT_TEMPLATE_INVALID"
  | "MEMORY_BUDGET_TOO_SMALL"
  | "VRAM_BUDGET_TOO_LARGE"
  | "KV_SPILL_FAILED"
  | "PROMPT_TOO_LONG"
  | "TOKEN_OUT_OF_RANGE"
  | "DEVICE_UNAVAILABLE"
  | "DEVICE_FAILED"
  | "MODEL_DISPOSED"
  | "ABORTED"
  | "INTERNAL";

export interface ErrorDetails {
  /** What the user can do about it, as a sentence. It becomes the end of the message. */
  remedy?: string;
  file?: string;
  tensor?: string;
  /** Byte offset in `file`. */
  offset?: number;
  cause?: unknown;
}

/** Every error that layerstream raises on purpose. `message` says what is wrong, where, and what to do. */
export class LayerstreamError extends Error {
  override readonly name = "LayerstreamError";
  readonly code: ErrorCode;
  readonly file: string | undefined;
  readonly tensor: string | undefined;
  readonly offset: number | undefined;
  readonly remedy: string | undefined;

  constructor(code: ErrorCode, what: string, details: ErrorDetails = {}) {
    super(details.remedy ? `${what} ${details.remedy}` : what, { cause: details.cause });
    this.code = code;
    this.file = details.file;
    this.tensor = details.tensor;
    this.offset = details.offset;
    this.remedy = details.remedy;
  }
}
