/** What is used of the library. Its own declarations do not resolve under NodeNext: they import without extensions. */
export interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): Map<number, { id: number; special: boolean }>;
  model: LibraryModel;
  normalizer: LibraryPart | null;
  pre_tokenizer: LibraryPart | null;
  decoder: LibraryPart | null;
}

export interface LibraryModel {
  tokens_to_ids: Map<string, number>;
  unk_token: string | undefined;
  /** Only of byte pair encoding: the pieces of a word, looked up in the vocabulary afterwards. */
  bpe?(word: string): string[];
  merges?: readonly (readonly [string, string])[];
  bpe_ranks?: Map<string, number>;
  end_of_word_suffix?: string | null;
  encode(words: string[]): string[];
}

/** A normalizer, a pre-tokenizer or a decoder, or a sequence of them. */
export interface LibraryPart {
  normalizers?: (LibraryPart | null)[];
  tokenizers?: (LibraryPart | null)[];
  decoders?: (LibraryPart | null)[];
  normalize?(text: string): string;
  pre_tokenize_text?(text: string, options: object): string[];
  /** Of pre-tokenizers: matches one word after the other. */
  pattern?: RegExp | null;
  decode_chain?(tokens: string[]): string[];
}

/** An object of tokenizer.json. */
export type Spec = Readonly<Record<string, unknown>>;
