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

/** What is replaced, and what is replaced in two steps: the first of which takes " ' " for an apostrophe. */
const REPLACED: readonly string[] = [
  ...REPLACEMENTS.map(([from]) => from),
  " n ' t",
  "  ' m",
  "  ' s",
  "  ' ve",
  "  ' re",
];
const MAX_REPLACED = Math.max(...REPLACED.map(({ length }) => length));

/** `cleanUpSpaces` of a growing text, piece by piece: what later characters might still change is kept back. */
export class SpaceCleaner {
  private kept = "";

  push(piece: string): string {
    const text = this.kept + piece;
    const end = settledLength(text);
    this.kept = text.slice(end);
    return cleanUpSpaces(text.slice(0, end));
  }

  flush(): string {
    const rest = cleanUpSpaces(this.kept);
    this.kept = "";
    return rest;
  }
}

/** Where `text` can be cut, so that nothing that is or will be replaced lies on both sides. */
function settledLength(text: string): number {
  let end = text.length;
  for (let start = end - 1; start >= 0 && start > end - MAX_REPLACED; start--) {
    const reaches = (replaced: string): boolean => {
      const known = text.slice(start, start + replaced.length);
      return start + replaced.length > end && replaced.startsWith(known);
    };
    if (text[start] === " " && REPLACED.some(reaches)) end = start;
  }
  return end;
}
