import { Trie } from "./trie.js";

/** A text that is found before the vocabulary cuts what is left. */
export interface AddedToken {
  content: string;
  /** Mostly one; a text that stands for several tokens has more. */
  ids: readonly number[];
  /** No text of its own: left out on request when decoding. */
  special: boolean;
  /** White space before and after belongs to the token. */
  lstrip?: boolean;
  rstrip?: boolean;
  /** Not within a word. */
  singleWord?: boolean;
  /** Has an id and a name, but texts are not searched for it. */
  hidden?: boolean;
}

const WORD_END = /[\p{L}\p{N}_]$/u;
const WORD_START = /^[\p{L}\p{N}_]/u;

/** Finds added tokens, the leftmost first and of those the longest. */
export class AddedTokens {
  private readonly trie = new Trie();
  private readonly tokens: readonly AddedToken[];

  constructor(tokens: Iterable<AddedToken>) {
    this.tokens = [...tokens].filter(({ content, hidden }) => content !== "" && !hidden);
    for (const [index, { content }] of this.tokens.entries()) this.trie.add(content, index);
  }

  /** Texts (not empty) and added tokens, in the order of `text`. */
  split(text: string): (string | AddedToken)[] {
    const parts: (string | AddedToken)[] = [];
    let start = 0;
    for (let at = 0; at < text.length; ) {
      const found = this.find(text, at);
      if (found === undefined) {
        at++;
        continue;
      }
      const before = found.lstrip ? text.slice(start, at).trimEnd() : text.slice(start, at);
      if (before !== "") parts.push(before);
      parts.push(found);
      at += found.content.length;
      if (found.rstrip) while (at < text.length && /\s/.test(text.charAt(at))) at++;
      start = at;
    }
    if (start < text.length) parts.push(text.slice(start));
    return parts;
  }

  private find(text: string, start: number): AddedToken | undefined {
    const end = this.trie.longestMatch(text, start);
    if (end === start) return undefined;
    let node = 0;
    for (let i = start; i < end; i++) node = this.trie.child(node, text.charCodeAt(i));
    const token = this.tokens[this.trie.value(node)];
    const isInWord =
      WORD_END.test(text.slice(Math.max(0, start - 2), start)) || WORD_START.test(text.slice(end, end + 2));
    return token?.singleWord && isInWord ? undefined : token;
  }
}
