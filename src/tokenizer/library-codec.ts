import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { isRecord } from "../checkpoint/strict-json.js";
import { MAX_TOKEN_ID } from "./declared-tokens.js";
import type { Library } from "./library.js";
import { mendLibrary } from "./library-repairs.js";
import type { TextCodec } from "./text-codec.js";

/** Very old files name none. */
const MODEL_TYPES: readonly unknown[] = ["BPE", "WordPiece", "Unigram"];

/** tokenizer.json, through `@huggingface/tokenizers`. */
export class LibraryCodec implements TextCodec {
  readonly specialIds: ReadonlySet<number>;
  readonly cleansUpSpaces: boolean;
  private readonly library: Library;

  /**
   * @param named contents of `eos_token` and its like, which are special whatever tokenizer.json says.
   * @throws Error for files that the library cannot use, or would misread.
   */
  constructor(tokenizer: Record<string, unknown>, config: Record<string, unknown>, named: readonly string[]) {
    const model = checkTokenizer(tokenizer);
    this.library = new HuggingFaceTokenizer(tokenizer, config);
    mendLibrary(this.library, tokenizer);
    // transformers ignores the setting for byte pair encoding, where it would remove spaces of the text.
    this.cleansUpSpaces = config.clean_up_tokenization_spaces === true && model.type !== "BPE";
    const added = [...this.library.get_added_tokens_decoder().values()].filter((token) => token.special);
    const ids = [...named.map((token) => this.library.token_to_id(token)), ...added.map((token) => token.id)];
    this.specialIds = new Set(ids.filter((id) => id !== undefined));
  }

  encode(text: string, addSpecialTokens: boolean): number[] {
    if (text === "" && !addSpecialTokens) return [];
    const { ids } = this.library.encode(text, { add_special_tokens: addSpecialTokens });
    // Characters that neither the vocabulary nor an unknown token covers have no id.
    return ids.filter((id) => id !== undefined);
  }

  /** The library refuses an empty list, and by default cleans up in its own way. */
  decode(ids: readonly number[]): string {
    return ids.length === 0 ? "" : this.library.decode([...ids], { clean_up_tokenization_spaces: false });
  }

  tokenOf(id: number): string | undefined {
    return this.library.id_to_token(id);
  }

  idOf(token: string): number | undefined {
    return this.library.token_to_id(token);
  }
}

/** The library indexes an array by token ids, and takes unknown types for an old one of its own. */
function checkTokenizer(tokenizer: Record<string, unknown>): Record<string, unknown> {
  const { model, added_tokens: addedTokens } = tokenizer;
  if (!isRecord(model)) throw new Error("model is not an object");
  if (model.type !== undefined && !MODEL_TYPES.includes(model.type)) {
    const type = JSON.stringify(model.type)?.slice(0, 60);
    throw new Error(`model.type is ${type}, which is not supported (${MODEL_TYPES.join(", ")} are)`);
  }
  const ids = [
    ...(isRecord(model.vocab) ? Object.values(model.vocab) : []),
    ...(Array.isArray(addedTokens) ? addedTokens.map((token: unknown) => isRecord(token) && token.id) : []),
  ];
  if (!ids.every((id) => Number.isInteger(id) && Number(id) >= 0 && Number(id) < MAX_TOKEN_ID)) {
    throw new Error(`it has a token whose id is not a whole number from 0 to ${MAX_TOKEN_ID - 1}`);
  }
  return model;
}
