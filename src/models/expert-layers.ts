import type { Routing } from "./architecture.js";
import { type ConfigReader, LIMITS } from "./config.js";
import type { DecoderSpec, MlpSpec, MoeSpec } from "./family.js";

/** Plain top-k routing without groups, with what the config says of experts. */
export function readRouting(
  config: ConfigReader,
  keys: { experts: string; alias?: string; perToken?: number },
  rest: Partial<Routing> = {},
): Routing {
  // Newer configs of some families write the alias.
  const key = keys.alias !== undefined && config.has(keys.alias) ? keys.alias : keys.experts;
  const experts = config.integer(key, 1, LIMITS.experts);
  return {
    experts,
    perToken: config.integer("num_experts_per_tok", 1, experts, keys.perToken),
    scoring: "softmax",
    groupCount: 1,
    groupsKept: 1,
    groupScore: "max",
    normalize: true,
    scale: 1,
    ...rest,
  };
}

/**
 * Groups of experts, of which the best are eligible: `n_group` and `topk_group`.
 * @throws CONFIG_INVALID for groups of unequal size, of one expert where two are summed, and too few eligible experts
 */
export function readGroups(
  config: ConfigReader,
  routing: Routing,
  defaults: { count?: number; kept?: number } = {},
): Routing {
  const groupCount = config.integer("n_group", 1, routing.experts, defaults.count);
  const groupsKept = config.integer("topk_group", 1, groupCount, defaults.kept);
  const size = routing.experts / groupCount;
  const least = routing.groupScore === "topTwoSum" && groupCount > 1 ? 2 : 1;
  if (!Number.isInteger(size) || size < least) {
    config.refuse(
      "n_group",
      `a divisor of the number of experts (${routing.experts}) that leaves ${least} or more in a group`,
    );
  }
  if (routing.perToken > groupsKept * size) {
    config.refuse("num_experts_per_tok", `at most ${groupsKept * size}, the experts in topk_group groups`);
  }
  return { ...routing, groupCount, groupsKept };
}

/** The decoder with experts in the layers that `sparse` names; the others keep their MLP. */
export function withExperts(spec: DecoderSpec, moe: MoeSpec, sparse: (layer: number) => boolean): DecoderSpec {
  const layers = spec.layers.map((layer, index) => (sparse(index) ? { ...layer, feedForward: moe } : layer));
  return { ...spec, layers };
}

/** Experts like the decoder's own MLP, without biases. */
export function gatedExperts(spec: DecoderSpec, intermediateSize: number, routing: Routing): MoeSpec {
  const [{ feedForward }] = spec.layers as readonly [{ feedForward: MlpSpec }];
  const { activation } = feedForward;
  return { kind: "moe", routing, routerBias: false, correction: false, intermediateSize, activation, bias: false };
}

/** Qwen's rule: every `decoder_sparse_step`-th layer, but for those in `mlp_only_layers`. */
export function readQwenSparseLayers(config: ConfigReader): (layer: number) => boolean {
  const step = config.integer("decoder_sparse_step", 1, LIMITS.layers, 1);
  const dense = new Set(config.integers("mlp_only_layers"));
  return (layer) => (layer + 1) % step === 0 && !dense.has(layer);
}
