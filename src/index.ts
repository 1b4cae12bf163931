export { AutoModel } from "./auto-model.js";
export { isLayerStore } from "./checkpoint/layer-store.js";
export { type DecomposeOptions, type DecomposeResult, decompose } from "./decompose/decompose.js";
export { type StoreProblem, type Verification, verifyStore } from "./decompose/verify.js";
export type {
  ChatMessage,
  FinishReason,
  GeneratedToken,
  GenerateOptions,
  Generation,
  LoadOptions,
  LoadProgress,
  Model,
  Precision,
  Prompt,
  Residency,
  ResidencyEntry,
  SamplingOptions,
  Stats,
  TokenizerLike,
} from "./engine/contract.js";
export type { ActivityProfile, PhaseProfile, Profile, StageProfile } from "./engine/profile.js";
export { type ErrorCode, type ErrorDetails, LayerstreamError } from "./errors.js";
export type { Architecture } from "./models/architecture.js";
export { inspect } from "./models/inspect.js";
export { AutoTokenizer, Tokenizer } from "./tokenizer/tokenizer.js";
