import type { RopeSpec } from "./architecture.js";

export interface RopeFrequencies {
  /** Radians a position for each of the rotaryDim / 2 pairs. */
  inverseFrequencies: Float32Array;
  /** Multiplies cosine and sine. */
  attentionFactor: number;
}

type Scaling<T extends RopeSpec["scaling"]["type"]> = Extract<RopeSpec["scaling"], { type: T }>;

const f32 = Math.fround;

/**
 * Frequencies of the rotary embedding for a pass whose last position is `sequenceLength - 1`; the kinds of
 * `dependsOnLength` depend on it. Formulas and the points where values round to float32 are those of transformers'
 * `modeling_rope_utils`, so that tables agree to the last bit or two.
 */
export function ropeFrequencies(spec: RopeSpec, sequenceLength: number): RopeFrequencies {
  const { rotaryDim, theta, scaling } = spec;
  switch (scaling.type) {
    case "default":
      return { inverseFrequencies: inverse(powers(theta, rotaryDim)), attentionFactor: 1 };
    case "linear": {
      const factor = f32(scaling.factor);
      return { inverseFrequencies: inverse(powers(theta, rotaryDim)).map((f) => f / factor), attentionFactor: 1 };
    }
    case "dynamic":
      return {
        inverseFrequencies: inverse(powers(dynamicTheta(spec, scaling, sequenceLength), rotaryDim)),
        attentionFactor: 1,
      };
    case "llama3":
      return { inverseFrequencies: llama3(inverse(powers(theta, rotaryDim)), scaling), attentionFactor: 1 };
    case "yarn":
      return { inverseFrequencies: yarn(spec, scaling), attentionFactor: scaling.attentionFactor };
    case "longrope":
      return {
        inverseFrequencies: longRope(spec, scaling, sequenceLength),
        attentionFactor: scaling.attentionFactor,
      };
    case "qwenDynamic":
      return {
        inverseFrequencies: inverse(powers(qwenTheta(spec, scaling, sequenceLength), rotaryDim)),
        attentionFactor: 1,
      };
  }
}

/** Whether the frequencies change with the length of the sequence. */
export function dependsOnLength({ scaling }: RopeSpec): boolean {
  return scaling.type === "dynamic" || scaling.type === "longrope" || scaling.type === "qwenDynamic";
}

/** theta^(2i / dim), rounded to float32. */
function powers(theta: number, dim: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, i) => f32(theta) ** f32((2 * i) / dim));
}

function inverse(values: Float32Array): Float32Array {
  return values.map((value) => 1 / value);
}

/** NTK-aware scaling: the base grows with the part of the sequence that lies beyond the trained length. */
function dynamicTheta(spec: RopeSpec, scaling: Scaling<"dynamic">, sequenceLength: number): number {
  const trained = scaling.originalMaxPositionEmbeddings;
  if (sequenceLength <= trained) return spec.theta;
  const stretched = f32(f32(f32(scaling.factor) * f32(sequenceLength)) / f32(trained));
  const growth = f32(stretched - f32(scaling.factor - 1));
  return f32(f32(spec.theta) * f32(growth ** f32(spec.rotaryDim / (spec.rotaryDim - 2))));
}

/** Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between them interpolated. */
function llama3(frequencies: Float32Array, scaling: Scaling<"llama3">): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings: trained } = scaling;
  const longest = f32(trained / lowFreqFactor);
  const shortest = f32(trained / highFreqFactor);
  return frequencies.map((frequency) => {
    const wavelength = f32(f32(2 * Math.PI) / frequency);
    if (wavelength > longest) return frequency / f32(factor);
    if (wavelength < shortest) return frequency;
    const position = f32(f32(trained / wavelength) - f32(lowFreqFactor));
    const smooth = f32(position / f32(highFreqFactor - lowFreqFactor));
    const scaled = f32(f32(f32(1 - smooth) * frequency) / f32(factor));
    return scaled + f32(smooth * frequency);
  });
}

/** YaRN: each pair blends the scaled and the plain frequency, by how often it turns within the trained length. */
function yarn(spec: RopeSpec, scaling: Scaling<"yarn">): Float32Array {
  const { rotaryDim: dim, theta } = spec;
  const pairAtRotations = (rotations: number): number =>
    (dim * Math.log(scaling.originalMaxPositionEmbeddings / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const fast = pairAtRotations(scaling.betaFast);
  const slow = pairAtRotations(scaling.betaSlow);
  const low = Math.max(scaling.truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(scaling.truncate ? Math.ceil(slow) : slow, dim - 1);
  const span = f32(low === high ? 0.001 : high - low);
  return powers(theta, dim).map((power, i) => {
    const ramp = Math.min(Math.max(f32(f32(i - f32(low)) / span), 0), 1);
    const kept = f32(1 - ramp);
    const scaled = f32(1 / f32(f32(scaling.factor) * power));
    return f32(scaled * f32(1 - kept)) + f32(f32(1 / power) * kept);
  });
}

/** LongRoPE: a divisor of its own for each pair; beyond the trained length, the long ones. */
function longRope(spec: RopeSpec, scaling: Scaling<"longrope">, sequenceLength: number): Float32Array {
  const long = sequenceLength > scaling.originalMaxPositionEmbeddings;
  const factors = long ? scaling.longFactor : scaling.shortFactor;
  return powers(spec.theta, spec.rotaryDim).map((power, i) => 1 / f32(f32(factors[i] as number) * power));
}

/** get_ntk_alpha and rotary_emb_base of QWen v1's modeling_qwen.py: the base grows whenever the length doubles. */
function qwenTheta(spec: RopeSpec, scaling: Scaling<"qwenDynamic">, sequenceLength: number): number {
  const doublings = Math.log2(sequenceLength / scaling.trainedLength) + 1;
  const alpha = Math.max(2 ** Math.ceil(doublings) - 1, 1);
  return spec.theta * alpha ** (spec.rotaryDim / (spec.rotaryDim - 2));
}
