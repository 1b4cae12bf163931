import { Trie } from "./trie.js";

export interface UnigramPiece {
  text: string;
  id: number;
  /** Logarithm of its probability. */
  score: number;
}

/** A part of a text: a token, or a character that no token covers (`id` is -1). */
export interface UnigramSegment {
  id: number;
  start: number;
  end: number;
}

/** The segmentation of the highest total score (Kudo 2018, Viterbi search), in O(length of text x longest token). */
export class Unigram {
  private readonly trie = new Trie();
  private readonly scores: number[] = [];
  private readonly ids: number[] = [];

  /**
   * @param unknownScore of a character that is not a token.
   * @param round of every sum: sentencepiece keeps 32-bit, Hugging Face's tokenizers 64-bit sums, and ties fall as they
   * round.
   */
  constructor(
    pieces: Iterable<UnigramPiece>,
    private readonly unknownScore: number,
    private readonly round: (sum: number) => number,
  ) {
    for (const piece of pieces) {
      this.trie.add(piece.text, this.ids.length);
      this.ids.push(piece.id);
      this.scores.push(piece.score);
    }
  }

  segment(text: string): UnigramSegment[] {
    const best = new Float64Array(text.length + 1);
    /** Where the best token that ends here starts; -1 if none does. */
    const from = new Int32Array(text.length + 1).fill(-1);
    const ids = new Int32Array(text.length + 1);
    const offer = (start: number, end: number, id: number, exactSum: number): void => {
      const sum = this.round(exactSum);
      if (from[end] !== -1 && sum <= (best[end] as number)) return;
      best[end] = sum;
      from[end] = start;
      ids[end] = id;
    };

    for (let start = 0; start < text.length; ) {
      const sum = best[start] as number;
      const single = start + ((text.codePointAt(start) as number) > 0xffff ? 2 : 1);
      let node = 0;
      let isCovered = false;
      for (let end = start + 1; end <= text.length; end++) {
        node = this.trie.child(node, text.charCodeAt(end - 1));
        if (node < 0) break;
        const piece = this.trie.value(node);
        if (piece < 0) continue;
        offer(start, end, this.ids[piece] as number, (this.scores[piece] as number) + sum);
        if (end === single) isCovered = true;
      }
      if (!isCovered) offer(start, single, -1, this.unknownScore + sum);
      start = single;
    }

    const segments: UnigramSegment[] = [];
    for (let end = text.length; end > 0; end = from[end] as number) {
      segments.push({ id: ids[end] as number, start: from[end] as number, end });
    }
    return segments.reverse();
  }
}
