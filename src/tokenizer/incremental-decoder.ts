/** Tokens that a window keeps after a cut. A character spans at most four tokens, so the state at its end is whole. */
const KEPT_TOKENS = 8;
const MAX_TOKENS = 24;
/**
 * What may still change when more bytes come: up to three bytes of an incomplete character (some decoders give U+FFFD
 * for each, others for all of them), or half of a surrogate pair.
 */
const UNFINISHED = /\uFFFD{1,3}$|[\uD800-\uDBFF]$/;

/**
 * Decodes a growing list of ids piece by piece. Only the last few tokens are decoded again for each new one: text
 * before the last character never changes, and an incomplete UTF-8 sequence is settled by the bytes that follow it,
 * whatever came before the window.
 */
export class IncrementalDecoder {
  private window: number[] = [];
  /** Characters of the window's text that have been returned. */
  private returned = 0;

  /** @param decode text of a list of ids; every id that it ignores must be left out by the caller. */
  constructor(private readonly decode: (ids: readonly number[]) => string) {}

  /** Text that `id` completes; empty while a character is incomplete. */
  push(id: number): string {
    this.window.push(id);
    const text = this.decode(this.window);
    // A completed U+FFFD of the text's own is shorter than its bytes were: what has been returned stays so.
    const end = Math.max(finishedLength(text), this.returned);
    const piece = text.slice(this.returned, end);
    this.returned = end;
    if (this.window.length >= MAX_TOKENS) this.cut(text.length - end);
    return piece;
  }

  /** Forgets tokens whose text has been returned. The last `pending` characters have not. */
  private cut(pending: number): void {
    const kept = this.window.slice(-KEPT_TOKENS);
    const text = this.decode(kept);
    // An empty text would let the decoder take the next token for the first one, whose leading space it drops.
    if (text === "" || text.length < pending) return;
    this.window = kept;
    this.returned = text.length - pending;
  }

  /** The rest: what an incomplete character decodes to. The decoder is then as new. */
  flush(): string {
    const rest = this.window.length === 0 ? "" : this.decode(this.window).slice(this.returned);
    this.window = [];
    this.returned = 0;
    return rest;
  }
}

function finishedLength(text: string): number {
  return text.length - (UNFINISHED.exec(text)?.[0].length ?? 0);
}
