/** In the order in which they are replaced (transformers, PreTrainedTokenizerBase.clean_up_tokenization). */
const REPLACEMENTS: readonly (readonly [string, string])[] = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];

/** Removes the spaces that a vocabulary of words leaves before punctuation and contractions. */
export function cleanUpSpaces(text: string): string {
  return REPLACEMENTS.reduce((cleaned, [from, to]) => cleaned.replaceAll(from, to), text);
}

/**
 * The longest text that becomes one replacement has six characters (" n ' t": one makes the beginning of the next). All
 * begin with a space and consist of these.
 */
const MAX_SPAN = 8;
const BEGINNING = / [ .?!,'ntmsver]*$/;

/** `cleanUpSpaces` of a growing text, piece by piece: what later characters might still change is kept back. */
export class SpaceCleaner {
  private kept = "";

  push(piece: string): string {
    const text = this.kept + piece;
    const tail = text.slice(-MAX_SPAN);
    const open = BEGINNING.exec(tail);
    const end = open === null ? text.length : text.length - tail.length + open.index;
    this.kept = text.slice(end);
    return cleanUpSpaces(text.slice(0, end));
  }

  flush(): string {
    const rest = cleanUpSpaces(this.kept);
    this.kept = "";
    return rest;
  }
}
