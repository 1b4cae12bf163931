/** An inspection as lines of text. */
import type { CompressionSettings } from "../quant/registry.js";
import { formatBytes, formatCount } from "../units.js";
import type { NormPlacement, RopeSpec } from "./architecture.js";
import type { Formats, Inspection, LayerSummary } from "./inspect.js";

type Fact = [name: string, value: string];

/** A table of facts, then a table of files; runs of layers that look the same share a line. */
export function renderInspection(inspection: Inspection): string {
  const { compression, expanded, dropped, vocabSize, tied } = inspection;
  const facts: Fact[] = [
    [inspection.kind, inspection.path],
    ["family", `${inspection.family} (model_type ${inspection.modelType})`],
    ["parameters", `${formatCount(inspection.parameters)} in ${formatBytes(inspection.bytes)}`],
    ["formats", renderFormats(inspection.formats)],
    ...(compression ? [["compression", renderCompression(compression)] satisfies Fact] : []),
    ...Object.entries(expanded).map(([reason, count]): Fact => ["to be f32", `${count} quantized matrices: ${reason}`]),
    ["layers", `${inspection.layerCount}`],
    ["hidden, MLP", `${inspection.hiddenSize}, ${inspection.intermediateSize}`],
    ...expertFacts(inspection),
    ["norms", NORMS[inspection.normPlacement]],
    ["attention", renderAttention(inspection)],
    ["KV cache", renderKvCache(inspection)],
    ...ropeFacts(inspection.ropes),
    ["vocabulary", `${vocabSize}${tied ? ", head tied to the embedding" : ""}`],
    ["context", `${inspection.maxPositionEmbeddings}`],
    ...(dropped.length > 0 ? [["unused", dropped.join(", ")] satisfies Fact] : []),
  ];
  return [...alignColumns(facts), "", ...alignColumns(layerRows(inspection))].join("\n");
}

const NORMS: Readonly<Record<NormPlacement, string>> = {
  pre: "before each half of a layer",
  post: "after each half of a layer",
  sandwich: "before and after each half of a layer",
  parallel: "one for both halves of a layer, which run side by side",
};

function renderKvCache({ kvCacheBytesPerTokenByFormat: bytes }: Inspection): string {
  return `${formatBytes(bytes.f32)} a token, as bf16 ${formatBytes(bytes.bf16)}, as 8bit ${formatBytes(bytes["8bit"])}`;
}

function expertFacts({ experts }: Inspection): Fact[] {
  if (!experts) return [];
  const { count, perToken, intermediateSize, sharedIntermediateSize } = experts;
  const shared = sharedIntermediateSize > 0 ? `, shared MLP ${sharedIntermediateSize}` : "";
  return [["experts", `${count}, ${perToken} a token, MLP ${intermediateSize} each${shared}`]];
}

function renderAttention({ attention, heads, headDim, kvHeads }: Inspection): string {
  const kv = attention === "latent" ? "keys and values of one latent vector" : `KV heads ${kvHeads}`;
  return `${heads} heads of ${headDim}, ${kv}`;
}

function ropeFacts(ropes: readonly RopeSpec[]): Fact[] {
  if (ropes.length === 0) return [["rope", "none"]];
  return ropes.map(({ rotaryDim, theta, scaling }, index) => {
    const factor = "factor" in scaling ? ` x ${scaling.factor}` : "";
    const text = `${rotaryDim} of each head, theta ${theta}, ${scaling.type}${factor}`;
    return [ropes.length > 1 ? `rope ${index}` : "rope", text];
  });
}

function layerRows({ layers, ropes }: Inspection): string[][] {
  const rows = [["file", "parameters", "bytes", "stages", "attention", "formats"]];
  let first = "";
  let previous = "";
  for (const layer of layers) {
    const { file, parameters, bytes, formats } = layer;
    const cells = [
      formatCount(parameters),
      formatBytes(bytes),
      renderStages(layer),
      renderLayerAttention(layer, ropes.length > 1),
      renderFormats(formats),
    ];
    const same = cells.join() === previous;
    if (!same) first = file;
    if (same) rows.pop();
    rows.push([same ? `${first} to ${file}` : file, ...cells]);
    previous = cells.join();
  }
  return rows;
}

function renderStages({ stages }: LayerSummary): string {
  return stages
    .map(({ name, count, bytes }) => `${count > 1 ? `${count} ${name}s` : name} ${formatBytes(bytes)}`)
    .join(", ");
}

function renderLayerAttention({ stages, window, rope }: LayerSummary, severalRopes: boolean): string {
  if (!stages.some(({ name }) => name === "attention")) return "";
  const reach = window === undefined ? "full" : `window ${window}`;
  return severalRopes && rope !== undefined ? `${reach}, rope ${rope}` : reach;
}

function renderFormats(formats: Formats): string {
  const parts = Object.entries(formats).map(
    ([name, { bytes, bitsPerWeight }]) => `${name} ${formatBytes(bytes)} (${Number(bitsPerWeight.toFixed(2))} bits)`,
  );
  return parts.join(", ");
}

function renderCompression({ compression, embeddingCompression, headCompression }: CompressionSettings): string {
  return `${compression}, embedding ${embeddingCompression}, head ${headCompression}`;
}

function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
