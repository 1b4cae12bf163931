/**
 * Logits [tokens, vocab] of `tokens`, in passes of `length` tokens: of a prompt that is cut, or with 1 of one token after the
 * other.
 *
 * @param {import("../../dist/engine/engine.js").Engine} engine
 * @param {readonly number[]} tokens
 * @param {number} length
 */
export async function logitsOf(engine, tokens, length) {
  const { vocabSize } = engine.architecture;
  const logits = new Float32Array(tokens.length * vocabSize);
  const sequence = await engine.kvCache.acquire([], tokens.length);
  for (let first = 0; first < tokens.length; first += length) {
    const part = tokens.slice(first, first + length);
    const target = logits.subarray(first * vocabSize, (first + part.length) * vocabSize);
    await engine.run(sequence, part, target, { allLogits: true, prompt: length > 1 });
  }
  engine.kvCache.release(sequence, false);
  return logits;
}
