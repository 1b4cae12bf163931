/** A vocabulary and its way of cutting text: what a `Tokenizer` is built on. */
export interface TextCodec {
  /** @param addSpecialTokens put around the ids what the model expects around a prompt. */
  encode(text: string, addSpecialTokens: boolean): number[];
  /** @param ids each of which `tokenOf` knows. The text before `cleanUpSpaces`. */
  decode(ids: readonly number[]): string;
  /** Undefined for ids that are not in the vocabulary. */
  tokenOf(id: number): string | undefined;
  idOf(token: string): number | undefined;
  /** Tokens that are no text, such as the end of sequence. */
  readonly specialIds: ReadonlySet<number>;
  /** The text is to be cleaned of spaces before punctuation. */
  readonly cleansUpSpaces: boolean;
}
