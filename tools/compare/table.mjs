/** The results of tools/compare.mjs as Markdown: each format, cap and disk a row, with the ratios that are aimed at. */
import { formatNumber } from "../../dist/units.js";

const peers = ["llama.cpp", "transformers"];

/** The cell of a row that `program` is measured in: peers have nothing like `lossless`, and are measured in plain bf16. */
export function measuredAs(row, program) {
  const format = program !== "layerstream" && row.format === "lossless" ? "none" : row.format;
  return { ...row, program, format };
}

/** What layerstream is to be at least, as a multiple of a peer's speed; undefined where nothing is aimed at. */
function targetOf(measure, format, share, peer) {
  if (measure === "prefill") return peer === "llama.cpp" ? 1.2 : 0.85;
  if (share === "held") return peer === "llama.cpp" ? 1 : undefined;
  if (format === "lossless") return share === "0.5" ? 3.2 : share === "0.9" ? 20 : undefined;
  if (format === "none" || peer !== "llama.cpp") return undefined;
  return share === "0.5" ? 1.6 : share === "0.9" ? 4 : undefined;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

const measures = {
  decode: ({ tokenSeconds }) => tokenSeconds?.length > 0 && median(tokenSeconds),
  prefill: ({ prefillSeconds }) => prefillSeconds?.length > 0 && Math.min(...prefillSeconds),
};

/** "0.52 (3.1x, aim 3.2)" */
function describe(measure, own, result, row) {
  if (result === undefined) return "";
  if (result.problem !== undefined) return result.problem;
  const seconds = measures[measure](result);
  const target = targetOf(measure, row.format, row.share, result.program);
  const aim = target === undefined ? "" : `, aim ${target}`;
  return own ? `${formatNumber(seconds)} (${formatNumber(seconds / own)}x${aim})` : formatNumber(seconds);
}

/** `results` of all runs; the last one of a cell counts. */
export function comparisonTable(results, places) {
  const find = (row, program) => {
    const cell = measuredAs(row, program);
    const same = (result) =>
      ["program", "format", "share", "diskBytesPerSecond"].every((key) => result[key] === cell[key]);
    return results.findLast(same);
  };
  const rows = [["format", "memory", "disk", "", "layerstream, s", ...peers.map((peer) => `${peer}, s`)]];
  for (const row of places) {
    const { format, share, held, diskBytesPerSecond } = row;
    const place = [format, held ? "held" : `${share} W`, diskBytesPerSecond ? `${diskBytesPerSecond / 1e9} GB/s` : "-"];
    const mine = find(row, "layerstream");
    for (const measure of held ? ["decode", "prefill"] : ["decode"]) {
      const own = mine && mine.problem === undefined ? measures[measure](mine) : undefined;
      const label = measure === "decode" ? "a token" : "512 tokens";
      const others = peers.map((peer) => describe(measure, own, find(row, peer), row));
      rows.push([...place, label, own ? formatNumber(own) : (mine?.problem ?? ""), ...others]);
    }
  }
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(rows[0]), line(rows[0].map(() => "---")), ...rows.slice(1).map(line)].join("\n");
}
