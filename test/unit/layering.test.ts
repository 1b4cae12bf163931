import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");

/** Folders (and single files) of src/, lowest first; an import goes to the same row or to a lower one. */
const rows = [
  ["errors", "units"],
  ["native"],
  ["quant"],
  ["checkpoint"],
  ["models", "parallel", "tokenizer", "chat"],
  ["engine", "decompose"],
  ["auto-model"],
  ["index", "cli", "server"],
];

/** Folders of native/, lowest first. The backends stand beside: see `nativeViolations`. */
const nativeRows = [["platform"], ["io", "backend"], ["codec"], ["stream", "parallel"], ["addon"]];
const backends = ["cpu", "cuda", "hip", "opencl"];

/** Path relative to the checked folder, with slashes -> text. */
type Sources = ReadonlyMap<string, string>;

function readSources(folder: string, extensions: RegExp): Sources {
  const base = path.join(root, folder);
  const entries = readdirSync(base, { withFileTypes: true, recursive: true });
  const files = entries.filter((entry) => entry.isFile() && extensions.test(entry.name));
  return new Map(
    files.map((entry) => {
      const file = path.join(entry.parentPath ?? entry.path, entry.name);
      return [path.relative(base, file).replaceAll(path.sep, "/"), readFileSync(file, "utf8")];
    }),
  );
}

function importsOf(file: string, text: string): string[] {
  const specifiers = [...text.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*"(\.[^"]+)"/g)].map((match) => match[1] ?? "");
  return specifiers.map((specifier) => path.posix.join(path.posix.dirname(file), specifier).replace(/\.js$/, ".ts"));
}

function unitOf(file: string): string {
  return (file.split("/")[0] ?? "").replace(/\.ts$/, "");
}

function importGraph(sources: Sources): Map<string, string[]> {
  return new Map([...sources].map(([file, text]) => [file, importsOf(file, text)]));
}

/** One of the graph's cycles as a list of nodes, or undefined. */
function findCycle(graph: ReadonlyMap<string, Iterable<string>>): string[] | undefined {
  const finished = new Set<string>();
  const visit = (node: string, trail: string[]): string[] | undefined => {
    if (trail.includes(node)) return [...trail.slice(trail.indexOf(node)), node];
    if (finished.has(node)) return undefined;
    for (const next of graph.get(node) ?? []) {
      const cycle = visit(next, [...trail, node]);
      if (cycle) return cycle;
    }
    finished.add(node);
    return undefined;
  };
  for (const node of graph.keys()) {
    const cycle = visit(node, []);
    if (cycle) return cycle;
  }
  return undefined;
}

function unitGraph(graph: ReadonlyMap<string, string[]>): Map<string, Set<string>> {
  const units = new Map<string, Set<string>>();
  for (const [file, imports] of graph) {
    const targets = units.get(unitOf(file)) ?? new Set<string>();
    for (const target of imports) if (unitOf(target) !== unitOf(file)) targets.add(unitOf(target));
    units.set(unitOf(file), targets);
  }
  return units;
}

function typeScriptViolations(sources: Sources): string[] {
  const rowOf = (file: string) => rows.findIndex((row) => row.includes(unitOf(file)));
  const graph = importGraph(sources);
  const problems: string[] = [];
  for (const [file, imports] of graph) {
    if (rowOf(file) < 0) problems.push(`${file} is in no known layer`);
    for (const target of imports) {
      if (!sources.has(target)) problems.push(`${file} imports ${target}, which does not exist`);
      else if (rowOf(target) > rowOf(file)) problems.push(`${file} imports upward: ${target}`);
    }
  }
  for (const cycle of [findCycle(graph), findCycle(unitGraph(graph))]) {
    if (cycle) problems.push(`cycle: ${cycle.join(" -> ")}`);
  }
  return problems;
}

function nativeViolations(sources: Sources): string[] {
  const folderOf = (file: string) => (file.includes("/") ? (file.split("/")[0] ?? "") : "addon");
  const rowOf = (folder: string) => nativeRows.findIndex((row) => row.includes(folder));
  const problems: string[] = [];
  for (const [file, text] of sources) {
    const from = folderOf(file);
    const isAddon = /^addon\w*\.(cc|h)$/.test(file);
    if (!isAddon && /\bNapi::|\bnapi_\w|<napi\.h>|<node_api\.h>/.test(text)) problems.push(`${file} uses N-API`);
    if (!isAddon && rowOf(from) < 0 && !backends.includes(from)) problems.push(`${file} is in no known layer`);
    for (const match of text.matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
      const near = path.posix.join(path.posix.dirname(file), match[1] ?? "");
      const target = sources.has(near) ? near : (match[1] ?? "");
      if (!sources.has(target)) problems.push(`${file} includes "${match[1]}", which does not exist`);
      else if (!mayInclude(file, from, folderOf(target))) problems.push(`${file} must not include ${target}`);
    }
  }
  return problems;

  function mayInclude(file: string, from: string, to: string): boolean {
    if (from === to) return true;
    // The codec's entry points quantize with the CPU's kernels whatever the device is.
    // HIP is CUDA's device with another driver.
    const known = (from === "addon" && to === "cpu") || (from === "hip" && to === "cuda");
    if (backends.includes(to)) return known || file === "backend/registry.cc";
    if (backends.includes(from)) return to === "backend" || to === "platform";
    return rowOf(to) < rowOf(from);
  }
}

describe("TypeScript layering", () => {
  it("holds in src/", () => {
    expect(typeScriptViolations(readSources("src", /\.ts$/))).toEqual([]);
  });

  it.each([
    [
      "an upward import",
      { "native/types.ts": 'import { Model } from "../engine/contract.js";', "engine/contract.ts": "" },
    ],
    ["an upward type export", { "quant/a.ts": 'export type { A } from "../models/a.js";', "models/a.ts": "" }],
    ["an upward dynamic import", { "errors.ts": 'await import("./native/a.js")', "native/a.ts": "" }],
    ["a cycle of files", { "quant/a.ts": 'import "./b.js";', "quant/b.ts": 'import "./a.js";' }],
    [
      "a cycle of folders in one row",
      {
        "chat/a.ts": 'import "../tokenizer/a.js";',
        "tokenizer/a.ts": "",
        "tokenizer/b.ts": 'import "../chat/b.js";',
        "chat/b.ts": "",
      },
    ],
    ["an unknown folder", { "misc/a.ts": "" }],
    ["a missing file", { "cli/a.ts": 'import "./gone.js";' }],
  ])("notices %s", (_, files) => {
    expect(typeScriptViolations(new Map(Object.entries(files)))).toHaveLength(1);
  });
});

describe("C++ layering", () => {
  it("holds in native/", () => {
    expect(nativeViolations(readSources("native", /\.(cc|h|inc)$/))).toEqual([]);
  });

  it.each([
    ["N-API outside addon*.cc", { "io/reader.cc": "void f(Napi::Env env);" }],
    ["platform including above", { "platform/a.cc": '#include "../io/a.h"', "io/a.h": "" }],
    ["one backend in another", { "cuda/a.cc": '#include "../cpu/a.h"', "cpu/a.h": "" }],
    ["cuda including hip", { "cuda/a.cc": '#include "../hip/a.h"', "hip/a.h": "" }],
    ["a backend named outside registry.cc", { "stream/a.cc": '#include "../cpu/a.h"', "cpu/a.h": "" }],
    ["io including stream", { "io/a.cc": '#include "stream/a.h"', "stream/a.h": "" }],
    ["a missing header", { "io/a.cc": '#include "gone.h"' }],
  ])("notices %s", (_, files) => {
    expect(nativeViolations(new Map(Object.entries(files)))).toHaveLength(1);
  });

  it("lets the registry name the backends", () => {
    const files = {
      "backend/registry.cc": '#include "../cpu/device.h"',
      "cpu/device.h": '#include "../backend/a.h"',
      "backend/a.h": "",
    };
    expect(nativeViolations(new Map(Object.entries(files)))).toEqual([]);
  });
});
