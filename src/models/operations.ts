/** How much arithmetic a prompt takes, from the shapes alone. */
import type { Architecture, PlanOp, StageKind } from "./architecture.js";

export interface PromptOperations {
  /** Products of matrices with tokens: additions and multiplications. In proportion to the tokens. */
  linear: number;
  /** Scores and weighted sums of values: with the square of the tokens, or with their number times a window. */
  attention: number;
}

/** Of a prompt of `tokens` tokens, of which the head sees the last. Norms, activations and rotations are left out. */
export function promptOperations(architecture: Architecture, tokens: number): PromptOperations {
  const { kinds, layers, experts } = architecture;
  const total = { linear: 0, attention: 0 };
  for (const { kind, expert } of layers.flatMap(({ stages }) => stages)) {
    const { name, tensors, plan } = kinds[kind] as StageKind;
    if (name === "embed") continue;
    const share = expert === undefined || !experts ? 1 : experts.perToken / experts.count;
    const weights = tensors.reduce((sum, { shape: [rows = 0, columns = 0] }) => sum + rows * columns, 0);
    total.linear += 2 * weights * share * (name === "head" ? 1 : tokens);
    for (const op of plan) if (op.op === "attention") total.attention += attentionOperations(op, tokens);
  }
  return total;
}

function attentionOperations(op: Extract<PlanOp, { op: "attention" }>, tokens: number): number {
  const { heads, headDim, valueDim, window = 0 } = op;
  const seen = window === 0 ? tokens : Math.min(window, tokens);
  // The first `seen` tokens see one more each; the others see a window.
  const pairs = (seen * (seen + 1)) / 2 + (tokens - seen) * seen;
  return 2 * pairs * heads * (headDim + valueDim);
}
