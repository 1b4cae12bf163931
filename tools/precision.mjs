#!/usr/bin/env node
/**
 * What `precision: "fast"` does to logits, of every reference case in directories of such cases (a checkpoint with
 * expected.json): the largest difference from float32 over the largest logit.
 *
 *   node tools/precision.mjs [--compression 4bit] [DIRECTORY ...]        default: test/fixtures/families
 *
 * prompt: all tokens in one pass.  decode: one token after the other. Both against the same with `precision: "exact"`.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { formatTable } from "../dist/cli/table.js";
import { precisionOf } from "./measure/precision.mjs";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: { compression: { type: "string" } },
});
const directories = positionals.length > 0 ? positionals : ["test/fixtures/families"];
const cacheDir = fs.mkdtempSync(path.join(os.tmpdir(), "layerstream-precision-"));

function describe({ prompt, decode }) {
  return `prompt ${prompt.toExponential(1)}  decode ${decode.toExponential(1)}`;
}

const worst = { prompt: 0, decode: 0 };
const rows = [];
try {
  for (const directory of directories.flatMap((parent) =>
    fs.readdirSync(parent).map((name) => path.join(parent, name)),
  )) {
    if (!fs.existsSync(path.join(directory, "expected.json"))) continue;
    const differences = await precisionOf(directory, { cacheDir, compression: values.compression }).catch((error) =>
      error.code === "INVALID_ARGUMENT" ? error.code : Promise.reject(error),
    );
    if (typeof differences === "string") {
      rows.push([path.basename(directory), differences]);
      continue;
    }
    for (const way of ["prompt", "decode"]) worst[way] = Math.max(worst[way], differences[way]);
    rows.push([path.basename(directory), describe(differences)]);
  }
} finally {
  fs.rmSync(cacheDir, { recursive: true, force: true });
}
console.log(formatTable([...rows, ["worst", describe(worst)]]));
