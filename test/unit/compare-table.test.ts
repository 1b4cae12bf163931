/** The table of tools/compare.mjs: ratios, aims, and what could not be measured. */
import { expect, it } from "vitest";
import { comparisonTable } from "../../tools/compare/table.mjs";

const cell = { format: "lossless", share: "0.5", held: false, diskBytesPerSecond: 1e9 };
const rows = (results: object[], cells: object[]) => comparisonTable(results, cells).split("\n").slice(2);

it("divides medians, and takes the last result of a cell; lossless is compared with bf16", () => {
  const results = [
    { ...cell, program: "layerstream", tokenSeconds: [9, 9, 9] },
    { ...cell, program: "layerstream", tokenSeconds: [2, 0.5, 0.4] },
    { ...cell, format: "none", program: "llama.cpp", tokenSeconds: [2, 1.5, 100] },
    { ...cell, diskBytesPerSecond: 0, program: "transformers", tokenSeconds: [1] },
  ];
  expect(rows(results, [cell])).toEqual(["| lossless | 0.5 W | 1 GB/s | a token | 0.5 | 2 (4x, aim 3.2) |  |"]);
});

it("says why there is no figure", () => {
  const results = [
    { ...cell, program: "layerstream", problem: "there is no store" },
    { ...cell, format: "none", program: "llama.cpp", problem: "killed: out of memory" },
    { ...cell, format: "none", program: "transformers", tokenSeconds: [3, 1, 2] },
  ];
  expect(rows(results, [cell])).toEqual([
    "| lossless | 0.5 W | 1 GB/s | a token | there is no store | killed: out of memory | 2 |",
  ]);
});

it("compares prompts of programs that hold everything", () => {
  const held = { format: "none", share: "held", held: true, diskBytesPerSecond: 0 };
  const results = [
    { ...held, program: "layerstream", tokenSeconds: [0.1], prefillSeconds: [9, 8] },
    { ...held, program: "llama.cpp", tokenSeconds: [0.2], prefillSeconds: [16, 17] },
  ];
  expect(rows(results, [held])).toEqual([
    "| none | held | - | a token | 0.1 | 0.2 (2x, aim 1) |  |",
    "| none | held | - | 512 tokens | 8 | 16 (2x, aim 1.2) |  |",
  ]);
});
