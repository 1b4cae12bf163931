const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** Intl.Segmenter takes quadratic time. Runs of marks that are longer are cut. */
const MAX_RUN = 64;

/**
 * Characters that always begin a cluster, unless after a carriage return or a prepended mark (Unicode Annex 29, by
 * exclusion: marks, formats, Hangul, regional indicators, pictographs, and the scripts with conjuncts).
 */
const BEGINNING =
  /(?<![\r\p{Cf}\u0D4E])(?=[^\p{M}\p{Cf}\p{Grapheme_Extend}\p{Regional_Indicator}\p{Emoji_Modifier}\p{Extended_Pictographic}\u0900-\u109F\u1100-\u11FF\u1700-\u1CFF\uA800-\uABFF\uAC00-\uD7FF\u{10000}-\u{11FFF}])/u;

/** The grapheme clusters of `text`, in time proportional to its length. */
export function graphemes(text: string): string[] {
  const clusters: string[] = [];
  for (const run of text.split(BEGINNING)) {
    for (let start = 0; start < run.length; ) {
      let end = Math.min(run.length, start + MAX_RUN);
      if (end < run.length && (run.codePointAt(end - 1) as number) > 0xffff) end++;
      const part = run.slice(start, end);
      if (part.length === 1) clusters.push(part);
      else for (const { segment } of segmenter.segment(part)) clusters.push(segment);
      start = end;
    }
  }
  return clusters;
}
