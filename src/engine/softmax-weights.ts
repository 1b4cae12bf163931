/** Steps of the table in each power of two. */
const STEPS = 32;
/** exp(-700) is the least that is told from 0. */
const POWERS = Float64Array.from({ length: Math.ceil(700 * Math.LOG2E * STEPS) + 1 }, (_, i) => 2 ** (-i / STEPS));

/**
 * Sets weights[t] = exp((scores[t] - top) / temperature) for the first `count` of `tokens`; returns their sum. `top` is
 * the greatest score. By table and a short series, several times as fast as Math.exp, with a relative error below 1e-12.
 */
export function softmaxWeights(
  scores: Float32Array,
  tokens: Uint32Array,
  count: number,
  top: number,
  temperature: number,
  weights: Float64Array,
): number {
  // Bounded, so that a distance of 0 stays 0 at the smallest temperatures.
  const scale = Math.min((STEPS * Math.LOG2E) / temperature, Number.MAX_VALUE);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const token = tokens[i] as number;
    const steps = (top - (scores[token] as number)) * scale;
    let weight = 0;
    if (steps < POWERS.length - 1) {
      const whole = steps | 0;
      const x = (whole - steps) * (Math.LN2 / STEPS);
      weight = (POWERS[whole] as number) * (1 + x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120))))));
    }
    weights[token] = weight;
    sum += weight;
  }
  return sum;
}
