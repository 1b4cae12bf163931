import type { PlanOp, Register } from "./architecture.js";
import type { DecoderSpec, GroupedAttention, LatentAttention, LayerSpec } from "./family.js";
import type { ModuleNames } from "./module-names.js";
import { type LinearSource, rowRange, StageBuilder } from "./stage-builder.js";

/** The attention half of a layer. `table` is the layer's rope table, if it rotates. */
export function attentionStage(
  spec: DecoderSpec,
  names: ModuleNames,
  layer: LayerSpec,
  table: number | undefined,
): StageBuilder {
  const stage = new StageBuilder();
  const { hiddenSize: width, placement } = spec;
  const prenormed = placement !== "post";
  if (prenormed) stage.norm(names.attentionNorm, spec.norm, { input: "hidden", output: "normed", width });
  const input = prenormed ? "normed" : "hidden";
  const { attention } = spec;
  const result =
    attention.kind === "grouped"
      ? groupedAttention(stage, spec, attention, names, layer, table, input)
      : latentAttention(stage, spec, attention, names, layer, table, input);
  const bias = attention.kind === "grouped" ? attention.outputBias : attention.bias;
  addToHidden(stage, spec, { name: names.output, postNorm: names.postAttentionNorm, bias, ...result });
  return stage;
}

/** hidden += [norm](linear(input)): the end of both halves of a layer. */
export function addToHidden(
  stage: StageBuilder,
  spec: DecoderSpec,
  part: { name: string; postNorm: string; bias: boolean; input: Register; columns: number },
): void {
  const { hiddenSize: width, placement, residualScale: scale = 1 } = spec;
  const { name, postNorm, bias, input, columns } = part;
  if (placement === "pre" || placement === "parallel") {
    const io = { input, output: "hidden", accumulate: true } as const;
    stage.linear(name, [width, columns], bias, scale === 1 ? io : { ...io, scale });
  } else {
    stage.linear(name, [width, columns], bias, { input, output: "normed" });
    stage.norm(postNorm, spec.norm, { input: "normed", output: "hidden", width, accumulate: true });
  }
}

function groupedAttention(
  stage: StageBuilder,
  spec: DecoderSpec,
  attention: GroupedAttention,
  names: ModuleNames,
  layer: LayerSpec,
  table: number | undefined,
  input: Register,
): { input: Register; columns: number } {
  const { heads, kvHeads, headDim, inputBias, headNorm, interleaved = false } = attention;
  const sources = queryKeyValueSources(attention, names);
  for (const register of ["query", "key", "value"] as const) {
    const rows = (register === "query" ? heads : kvHeads) * headDim;
    const options = sources ? { source: sources[register] } : {};
    stage.linear(names[register], [rows, spec.hiddenSize], inputBias, { input, output: register }, options);
  }
  for (const [target, count, norm] of [
    ["query", heads, names.queryNorm],
    ["key", kvHeads, names.keyNorm],
  ] as const) {
    if (headNorm === undefined) continue;
    const groups = headNorm === "head" ? count : 1;
    const width = (count * headDim) / groups;
    stage.norm(norm, spec.norm, { input: target, output: target, groups, width });
  }
  if (layer.rope && table !== undefined) {
    const rope = { op: "rope", headDim, rotaryDim: layer.rope.rotaryDim, offset: 0, interleaved, table } as const;
    stage.plan.push({ ...rope, target: "query", heads }, { ...rope, target: "key", heads: kvHeads });
  }
  const op: Extract<PlanOp, { op: "attention" }> = {
    op: "attention",
    query: "query",
    key: "key",
    value: "value",
    output: "query",
    heads,
    kvHeads,
    headDim,
    valueDim: headDim,
    scale: attention.scale,
  };
  if (layer.window !== undefined) op.window = layer.window;
  if (attention.softCap !== undefined) op.softCap = attention.softCap;
  if (attention.alibiSlopes !== undefined) op.alibiSlopes = attention.alibiSlopes;
  if (attention.lognLength !== undefined) op.lognLength = attention.lognLength;
  if (attention.sinks) op.sinks = stage.vector(names.sinks, heads);
  stage.plan.push(op);
  return { input: "query", columns: heads * headDim };
}

/** Rows of queries, keys and values in a packed projection; undefined when they have projections of their own. */
function queryKeyValueSources(
  { heads, kvHeads, headDim }: GroupedAttention,
  { queryKeyValue }: ModuleNames,
): Record<"query" | "key" | "value", LinearSource> | undefined {
  if (queryKeyValue === undefined) return undefined;
  const rows = (heads + 2 * kvHeads) * headDim;
  const module = queryKeyValue.name;
  if (queryKeyValue.order === "stacked") {
    const part = (first: number, count: number): LinearSource => ({
      module,
      packed: { rows, view: rowRange(first * headDim, count * headDim) },
    });
    return { query: part(0, heads), key: part(heads, kvHeads), value: part(heads + kvHeads, kvHeads) };
  }
  const group = heads / kvHeads;
  const part = (first: number, count: number): LinearSource => {
    const dims = [
      [kvHeads, (group + 2) * headDim],
      [count * headDim, 1],
    ] as const;
    return { module, packed: { rows, view: { offset: first * headDim, dims } } };
  };
  return { query: part(0, group), key: part(group, 1), value: part(group + 1, 1) };
}

/**
 * Latent attention in its absorbed form: the key projection is applied to the queries and the value projection to the
 * attended latents, so that the cache needs no expansion (DeepSeek-V2, section 2.1.2 and appendix C).
 */
function latentAttention(
  stage: StageBuilder,
  spec: DecoderSpec,
  attention: LatentAttention,
  names: ModuleNames,
  layer: LayerSpec,
  table: number | undefined,
  normed: Register,
): { input: Register; columns: number } {
  const { heads, queryRank, latentRank, nopeDim, ropeDim, valueDim, bias, interleaved } = attention;
  const keyDim = latentRank + ropeDim;
  const prefix = `${names.layer}self_attn.`;
  // transformers gives these norms an epsilon of 1e-6 whatever the config says.
  const latentNorm = { kind: "rms", epsilon: 1e-6 } as const;

  let input = normed;
  let columns = spec.hiddenSize;
  let query = `${prefix}q_proj`;
  if (queryRank !== undefined) {
    stage.linear(`${prefix}q_a_proj`, [queryRank, columns], bias, { input, output: "latent" });
    stage.norm(`${prefix}q_a_layernorm`, latentNorm, { input: "latent", output: "latent", width: queryRank });
    query = `${prefix}q_b_proj`;
    input = "latent";
    columns = queryRank;
  }
  const headRows = nopeDim + ropeDim;
  const part = (offset: number, count: number): LinearSource => {
    const dims = [
      [heads, headRows],
      [count, 1],
    ] as const;
    return { module: query, packed: { rows: heads * headRows, view: { offset, dims } } };
  };
  stage.linear(
    `${query}.nope`,
    [heads * nopeDim, columns],
    false,
    { input, output: "queryNope" },
    { source: part(0, nopeDim) },
  );
  const intoHeads = { rows: ropeDim, inputStride: 0, outputStride: keyDim };
  stage.linear(
    `${query}.rope`,
    [heads * ropeDim, columns],
    false,
    { input, output: "query", outputOffset: latentRank, groups: intoHeads },
    { source: part(nopeDim, ropeDim) },
  );
  const module = `${prefix}kv_b_proj`;
  const expandedRows = heads * (nopeDim + valueDim);
  const keyGroups = { stride: nopeDim + valueDim, rows: nopeDim };
  stage.linear(
    `${module}.key`,
    [heads * latentRank, nopeDim],
    false,
    {
      input: "queryNope",
      output: "query",
      groups: { rows: latentRank, inputStride: nopeDim, outputStride: keyDim },
    },
    { source: { module, transposed: { shape: [expandedRows, latentRank], groups: keyGroups } } },
  );
  const compressed = `${prefix}kv_a_proj_with_mqa`;
  stage.linear(compressed, [keyDim, spec.hiddenSize], bias, { input: normed, output: "key" });
  stage.norm(`${prefix}kv_a_layernorm`, latentNorm, { input: "key", output: "key", width: latentRank });
  if (layer.rope && table !== undefined) {
    const rope = { op: "rope", headDim: keyDim, rotaryDim: ropeDim, offset: latentRank, interleaved, table } as const;
    stage.plan.push({ ...rope, target: "query", heads }, { ...rope, target: "key", heads: 1 });
  }
  stage.plan.push({
    op: "attention",
    query: "query",
    key: "key",
    output: "attended",
    heads,
    kvHeads: 1,
    headDim: keyDim,
    valueDim: latentRank,
    scale: attention.scale,
  });
  const valueDims = [
    [heads, nopeDim + valueDim],
    [valueDim, 1],
  ] as const;
  stage.linear(
    `${module}.value`,
    [heads * valueDim, latentRank],
    false,
    {
      input: "attended",
      output: "value",
      groups: { rows: valueDim, inputStride: latentRank, outputStride: valueDim },
    },
    { source: { module, packed: { rows: expandedRows, view: { offset: nopeDim, dims: valueDims } } } },
  );
  return { input: "value", columns: heads * valueDim };
}
