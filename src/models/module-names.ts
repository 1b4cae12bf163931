import type { NormPlacement } from "./architecture.js";
import type { TensorNames } from "./family.js";

/** Every module's full name, `{layer}` and `{expert}` included. */
export type ModuleNames = Required<Omit<TensorNames, "queryKeyValue" | "gateUp" | "stackedExperts">> & {
  sinks: string;
} & Pick<TensorNames, "queryKeyValue" | "gateUp" | "stackedExperts">;

/** The Llama spellings, and where a family's names differ, the family's. */
export function moduleNames(names: TensorNames, placement: NormPlacement): ModuleNames {
  const layer = names.layer ?? "model.layers.{layer}.";
  const inLayer = (own: string | undefined, fallback: string) => layer + (own ?? fallback);
  const expert = inLayer(names.expert, "mlp.experts.{expert}");
  const optional: Pick<TensorNames, "queryKeyValue" | "gateUp" | "stackedExperts"> = {};
  if (names.queryKeyValue) optional.queryKeyValue = { ...names.queryKeyValue, name: layer + names.queryKeyValue.name };
  if (names.gateUp) optional.gateUp = layer + names.gateUp;
  if (names.stackedExperts) {
    optional.stackedExperts = { gateUp: layer + names.stackedExperts.gateUp, down: layer + names.stackedExperts.down };
  }
  return {
    ...optional,
    embedding: names.embedding ?? "model.embed_tokens",
    layer,
    finalNorm: names.finalNorm ?? "model.norm",
    head: names.head ?? "lm_head",
    attentionNorm: inLayer(names.attentionNorm, "input_layernorm"),
    postAttentionNorm: inLayer(names.postAttentionNorm, "post_attention_layernorm"),
    feedForwardNorm: inLayer(
      names.feedForwardNorm,
      placement === "sandwich" ? "pre_feedforward_layernorm" : "post_attention_layernorm",
    ),
    postFeedForwardNorm: inLayer(names.postFeedForwardNorm, "post_feedforward_layernorm"),
    query: inLayer(names.query, "self_attn.q_proj"),
    key: inLayer(names.key, "self_attn.k_proj"),
    value: inLayer(names.value, "self_attn.v_proj"),
    output: inLayer(names.output, "self_attn.o_proj"),
    queryNorm: inLayer(names.queryNorm, "self_attn.q_norm"),
    keyNorm: inLayer(names.keyNorm, "self_attn.k_norm"),
    sinks: `${layer}self_attn.sinks`,
    gate: inLayer(names.gate, "mlp.gate_proj"),
    up: inLayer(names.up, "mlp.up_proj"),
    down: inLayer(names.down, "mlp.down_proj"),
    router: inLayer(names.router, "mlp.gate"),
    correction: inLayer(names.correction, "mlp.gate.e_score_correction_bias"),
    shared: inLayer(names.shared, "mlp.shared_expert"),
    sharedGate: inLayer(names.sharedGate, "mlp.shared_expert_gate"),
    expert,
    expertGate: `${expert}.${names.expertGate ?? "gate_proj"}`,
    expertUp: `${expert}.${names.expertUp ?? "up_proj"}`,
    expertDown: `${expert}.${names.expertDown ?? "down_proj"}`,
  };
}
