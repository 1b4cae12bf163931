/** How a byte-level vocabulary of a GGUF file cuts text, by the name in `tokenizer.ggml.pre`. */
export interface GgufPreTokenizer {
  /** Applied one after the other; matches become words of their own. Empty: the pattern of GPT-2. */
  patterns: readonly string[];
  /** A word that is a token is not split, whatever the merges say. */
  ignoreMerges?: boolean;
  /** Unless `tokenizer.ggml.add_bos_token` says otherwise. */
  addBosToken?: boolean;
  normalizeNfc?: boolean;
}

const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const REST = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const WORD = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const CASED_PREFIX = "[^\\r\\n\\p{L}\\p{N}]?";
const CASED_REST = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const gpt2: GgufPreTokenizer = { patterns: [] };
const llama3: GgufPreTokenizer = {
  patterns: [`${CONTRACTIONS}|${WORD}|\\p{N}{1,3}|${REST}`],
  ignoreMerges: true,
  addBosToken: true,
};
const qwen2: GgufPreTokenizer = { patterns: [`${CONTRACTIONS}|${WORD}|\\p{N}|${REST}`], normalizeNfc: true };
const digitsThenGpt2: GgufPreTokenizer = { patterns: ["\\p{N}", GPT2_PATTERN] };

/**
 * The names that llama.cpp gives (github.com/ggml-org/llama.cpp, src/llama-vocab.cpp), with the patterns of the
 * original tokenizer.json files.
 */
export const GGUF_PRE_TOKENIZERS: ReadonlyMap<string, GgufPreTokenizer> = new Map<string, GgufPreTokenizer>([
  ["default", { patterns: ["[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"] }],
  ["gpt-2", gpt2],
  ["phi-2", gpt2],
  ["mpt", gpt2],
  ["olmo", gpt2],
  ["llama3", llama3],
  ["llama-v3", llama3],
  ["llama-bpe", llama3],
  ["falcon3", llama3],
  ["pixtral", llama3],
  ["dbrx", { patterns: llama3.patterns }],
  ["smaug-bpe", { patterns: llama3.patterns }],
  ["glm4", { patterns: llama3.patterns }],
  ["chatglm-bpe", { patterns: llama3.patterns }],
  ["qwen2", qwen2],
  ["deepseek-r1-qwen", qwen2],
  ["megrez", qwen2],
  ["stablelm2", { patterns: qwen2.patterns }],
  ["starcoder", digitsThenGpt2],
  ["refact", digitsThenGpt2],
  ["command-r", digitsThenGpt2],
  ["smollm", digitsThenGpt2],
  ["codeshell", digitsThenGpt2],
  ["exaone", digitsThenGpt2],
  ["minerva-7b", digitsThenGpt2],
  [
    "tekken",
    {
      patterns: [`${CASED_PREFIX}${UPPER}*${LOWER}+|${CASED_PREFIX}${UPPER}+${LOWER}*|\\p{N}|${CASED_REST}`],
      ignoreMerges: true,
      addBosToken: true,
    },
  ],
  [
    "gpt-4o",
    {
      patterns: [
        `${CASED_PREFIX}${UPPER}*${LOWER}+${CONTRACTIONS}?|${CASED_PREFIX}${UPPER}+${LOWER}*${CONTRACTIONS}?|` +
          `\\p{N}{1,3}|${CASED_REST}`,
      ],
    },
  ],
]);
