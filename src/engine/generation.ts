/** The loop that turns a prompt into tokens, and its public face. */
import { LayerstreamError } from "../errors.js";
import { TRACE_CALLER, TRACE_ENGINE, TRACE_IDLE } from "../native/types.js";
import type {
  ChatMessage,
  FinishReason,
  GeneratedToken,
  GenerateOptions,
  Generation,
  Prompt,
  TokenizerLike,
} from "./contract.js";
import type { Engine } from "./engine.js";
import type { RunOptions } from "./passes.js";
import { createSampler, isGreedy } from "./sampler.js";
import { StopStrings } from "./stop-strings.js";

const DEFAULT_NEW_TOKENS = 256;

export interface GenerationContext {
  engine: Engine;
  /** The tokenizer; or why it cannot be used, which is raised once text needs it. */
  vocabulary: TokenizerLike | LayerstreamError | undefined;
  eosTokenIds: readonly number[];
}

export function startGeneration(context: GenerationContext, prompt: Prompt, options: GenerateOptions): Generation {
  return new LazyGeneration(context, prompt, options);
}

class LazyGeneration implements Generation {
  finishReason: FinishReason | undefined;
  promptTokens: number | undefined;
  private started = false;

  constructor(
    private readonly context: GenerationContext,
    private readonly prompt: Prompt,
    private readonly options: GenerateOptions,
  ) {}

  [Symbol.asyncIterator](): AsyncGenerator<GeneratedToken> {
    if (this.started) {
      throw new LayerstreamError("INVALID_ARGUMENT", "This generation has been started already.", {
        remedy: "Call generate again.",
      });
    }
    this.started = true;
    return this.run();
  }

  async text(): Promise<string> {
    let text = "";
    for await (const item of this) text += item.text;
    return text;
  }

  async tokens(): Promise<number[]> {
    const tokens: number[] = [];
    for await (const item of this) tokens.push(item.token);
    return tokens;
  }

  private async *run(): AsyncGenerator<GeneratedToken> {
    const { engine, vocabulary, eosTokenIds } = this.context;
    const { options } = this;
    engine.checkAlive();
    const needsText = !isTokenIds(this.prompt) || (options.stop?.length ?? 0) > 0;
    if (vocabulary instanceof LayerstreamError && needsText) throw vocabulary;
    const tokenizer = vocabulary instanceof LayerstreamError ? undefined : vocabulary;
    const prompt = promptTokens(this.prompt, tokenizer);
    this.promptTokens = prompt.length;
    checkPrompt(prompt, engine);
    const stops = stopStrings(options.stop, tokenizer);
    const newTokens = Math.min(
      positiveInteger(options.maxNewTokens ?? DEFAULT_NEW_TOKENS),
      engine.plan.maxSeqLen - prompt.length,
    );
    const sampler = createSampler(options, engine.architecture.vocabSize);
    const decoder = tokenizer?.createDecoder({ skipSpecialTokens: true });
    const logits = new Float32Array(engine.architecture.vocabSize);

    const sequence = await engine.kvCache.acquire(prompt, prompt.length + newTokens, options.signal);
    let intact = false;
    let released = false;
    const release = () => {
      if (!released) engine.kvCache.release(sequence, intact);
      released = true;
    };
    try {
      const seen = [...prompt];
      const choose = isGreedy(options);
      // Text may end it at any token.
      const ahead = choose && (options.stop?.length ?? 0) === 0;
      const ends = Uint32Array.from(options.ignoreEos ? [] : eosTokenIds);
      const request = (count: number): RunOptions => ({
        prompt: count === 1,
        choose,
        ends: ahead && count < newTokens ? ends : undefined,
        signal: options.signal,
      });
      let chosen = await engine.run(sequence, prompt.slice(sequence.tokens.length), logits, request(1));
      for (let count = 1; ; count++) {
        // It says why where nothing could be chosen.
        const token = chosen >= 0 ? chosen : sampler(logits, seen);
        seen.push(token);
        engine.countGenerated();
        const ended = !options.ignoreEos && eosTokenIds.includes(token);
        let text = stops.push(ended ? "" : (decoder?.push(token) ?? ""));
        const finish: FinishReason | undefined = stops.stopped
          ? "stop"
          : ended
            ? "eos"
            : count === newTokens
              ? "length"
              : undefined;
        if (finish !== undefined && !stops.stopped) {
          text += stops.push(decoder?.flush() ?? "");
          text += stops.flush();
        }
        intact = true;
        if (finish !== undefined) {
          this.finishReason = stops.stopped ? "stop" : finish;
          // Before the last token is handed out: a caller who knows the length may never ask for more.
          release();
        }
        engine.mark(TRACE_CALLER);
        yield { text, token };
        engine.mark(TRACE_ENGINE);
        if (finish !== undefined) return;
        intact = false;
        chosen = await engine.run(sequence, [token], logits, request(count + 1));
      }
    } catch (error) {
      if (options.signal?.aborted) this.finishReason = "aborted";
      throw error;
    } finally {
      // A pass that failed half-way has written keys beyond the sequence; those before it are as they were.
      release();
      engine.mark(TRACE_IDLE);
    }
  }
}

function isTokenIds(prompt: Prompt): prompt is readonly number[] | Int32Array | Uint32Array {
  if (typeof prompt === "string") return false;
  return !Array.isArray(prompt) || typeof prompt[0] !== "object";
}

function promptTokens(prompt: Prompt, tokenizer: TokenizerLike | undefined): number[] {
  if (isTokenIds(prompt)) return Array.from(prompt);
  if (!tokenizer) {
    throw new LayerstreamError("TOKENIZER_MISSING", "The model has no tokenizer, so it cannot read text.", {
      remedy: "Give token ids, or add the checkpoint's tokenizer files.",
    });
  }
  if (typeof prompt === "string") return tokenizer.encode(prompt);
  const text = tokenizer.applyChatTemplate(prompt as readonly ChatMessage[], { addGenerationPrompt: true });
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/** Raises unless the tokens exist and leave room for at least one more. */
function checkPrompt(prompt: readonly number[], engine: Engine): void {
  checkTokens(prompt, engine.architecture.vocabSize);
  const { maxSeqLen } = engine.plan;
  if (prompt.length < maxSeqLen) return;
  throw new LayerstreamError(
    "PROMPT_TOO_LONG",
    `The prompt has ${prompt.length} tokens; with maxSeqLen ${maxSeqLen} it may have ${maxSeqLen - 1}.`,
    { remedy: "Shorten it, or load the model with a larger maxSeqLen." },
  );
}

export function checkTokens(tokens: ArrayLike<number>, vocabSize: number): void {
  if (tokens.length === 0) {
    throw new LayerstreamError("INVALID_ARGUMENT", "The prompt is empty.", { remedy: "Give it at least one token." });
  }
  for (let index = 0; index < tokens.length; index++) {
    const token = tokens[index] as number;
    if (Number.isInteger(token) && token >= 0 && token < vocabSize) continue;
    throw new LayerstreamError(
      "TOKEN_OUT_OF_RANGE",
      `Token ${token} at index ${index} is outside the vocabulary of ${vocabSize}.`,
      {
        remedy: `Token ids go from 0 to ${vocabSize - 1}.`,
      },
    );
  }
}

function stopStrings(stop: GenerateOptions["stop"], tokenizer: TokenizerLike | undefined): StopStrings {
  const stops = stop === undefined ? [] : typeof stop === "string" ? [stop] : [...stop];
  if (stops.some((text) => typeof text !== "string" || text === "")) {
    throw new LayerstreamError("INVALID_ARGUMENT", "A stop string is empty.", { remedy: "Leave it out." });
  }
  if (stops.length > 0 && !tokenizer) {
    throw new LayerstreamError("TOKENIZER_MISSING", "Stop strings need a tokenizer, and the model has none.");
  }
  return new StopStrings(stops);
}

function positiveInteger(value: number): number {
  if (Number.isInteger(value) && value > 0) return value;
  throw new LayerstreamError("INVALID_ARGUMENT", `maxNewTokens is ${value}.`, {
    remedy: "Give a whole number of at least 1.",
  });
}
