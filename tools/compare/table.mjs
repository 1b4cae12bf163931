/** The results of tools/compare.mjs as Markdown: each format, cap and disk a row, with the ratios that are aimed at. */
import { formatNumber } from "../../dist/units.js";

const peers = ["llama.cpp", "transformers"];

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
function describe(measure, own, result, cell) {
  if (result === undefined) return "";
  if (result.problem !== undefined) return result.problem;
  const seconds = measures[measure](result);
  const target = targetOf(measure, cell.format, cell.share, result.program);
  const aim = target === undefined ? "" : `, aim ${target}`;
  return own ? `${formatNumber(seconds)} (${formatNumber(seconds / own)}x${aim})` : formatNumber(seconds);
}

/** `results` of all runs; rows are those of `cells`. The last result of a cell counts. */
export function comparisonTable(results, cells) {
  const find = (cell, program) =>
    results.findLast(
      (result) =>
        result.program === program &&
        result.format === cell.format &&
        result.share === cell.share &&
        result.diskBytesPerSecond === cell.diskBytesPerSecond,
    );
  const rows = [["format", "memory", "disk", "", "layerstream, s", ...peers.map((peer) => `${peer}, s`)]];
  const done = new Set();
  for (const cell of cells) {
    const { format, share, held, diskBytesPerSecond } = cell;
    const place = [format, held ? "held" : `${share} W`, diskBytesPerSecond ? `${diskBytesPerSecond / 1e9} GB/s` : "-"];
    if (done.has(place.join())) continue;
    done.add(place.join());
    const mine = find(cell, "layerstream");
    for (const measure of held ? ["decode", "prefill"] : ["decode"]) {
      const own = mine && mine.problem === undefined ? measures[measure](mine) : undefined;
      const label = measure === "decode" ? "a token" : "512 tokens";
      const others = peers.map((peer) => describe(measure, own, find(cell, peer), cell));
      rows.push([...place, label, own ? formatNumber(own) : (mine?.problem ?? ""), ...others]);
    }
  }
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(rows[0]), line(rows[0].map(() => "---")), ...rows.slice(1).map(line)].join("\n");
}
