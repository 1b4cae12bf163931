#!/usr/bin/env node
/**
 * Writes a layer store with random weights, without a checkpoint: for measurements on models whose checkpoint would not
 * fit on the disk.
 *
 *   node tools/make-store.mjs DIRECTORY [--compression none|8bit|4bit] [--embedding-compression ...]
 *     [--head-compression ...] [--distinct-layers N] [the options of make-checkpoint.mjs that name a shape]
 *
 * `--hidden 8192 --intermediate 28672 --layers 80 --heads 64 --vocab 128256 --compression 4bit` has the shape of
 * Llama-3-70B and takes 39 GB. Weights are N(0, 0.02), quantized where the compression says so; every matrix is a window
 * of a pool of such rows that starts at a place of its own. Norms are 1. The same options give the same bytes.
 *
 * With --distinct-layers, layer N + i is a hard link to layer i: a 70B shape in bf16 then takes a few GB. Their safetensors
 * headers name the tensors of the layer that is linked to; the manifest names the layer's own.
 */
import fs from "node:fs";
import path from "node:path";
import { MANIFEST_FILE, MANIFEST_VERSION } from "../dist/checkpoint/manifest.js";
import { encodeManifest } from "../dist/checkpoint/manifest-text.js";
import { BlockWriter } from "../dist/decompose/block-writer.js";
import { layoutBytes, layoutLayer } from "../dist/decompose/layout.js";
import { Control } from "../dist/decompose/task.js";
import { tensorName } from "../dist/models/architecture.js";
import { architectureOf } from "../dist/models/registry.js";
import { native } from "../dist/native/binding.js";
import { compressionSettings } from "../dist/quant/registry.js";
import { formatBytes, formatDuration, formatRate } from "../dist/units.js";
import { refuse } from "./options.mjs";
import { encode, gaussianPool, poolValues, randomIntegers } from "./synthetic/random-weights.mjs";
import { claimDirectory, configOf, dtypes, readShape } from "./synthetic/shape.mjs";

const stagingBytes = 8 << 20;

/** Rows of random weights in any format of a store, made once for each width. */
class RowPools {
  #pools = new Map();
  #values;
  #dtype;

  constructor(random, dtype) {
    this.#values = encode(gaussianPool(random), dtype);
    this.#dtype = dtype;
  }

  rows({ format, block, shape, rowBytes }) {
    const columns = shape.at(-1);
    const count = Math.floor(poolValues / columns);
    const plain = this.#values.subarray(0, count * columns * dtypes[this.#dtype].bytes);
    if (format === this.#dtype) return plain;
    const key = `${format} ${block} ${columns}`;
    if (!this.#pools.has(key)) {
      const packed = new Uint8Array(count * rowBytes);
      if (!native().quantize(this.#dtype, plain, count, columns, format, block, packed)) {
        throw new Error(`Random weights could not be quantized to ${format}.`);
      }
      this.#pools.set(key, packed);
    }
    return this.#pools.get(key);
  }
}

/** What decompose would read from a checkpoint of this architecture, sources left out. */
function layersOf({ layers, kinds }, dtype) {
  return layers.map(({ file, stages }) => ({
    file,
    stages: stages.map(({ kind, layer, expert }) => ({
      name: kinds[kind].name,
      layer,
      ...(expert === undefined ? {} : { expert }),
      tensors: kinds[kind].tensors.map((spec) => ({
        name: tensorName(spec, layer, expert),
        role: spec.role,
        shape: spec.shape,
        sourceFormat: dtype,
        source: { kind: "strided" },
      })),
    })),
  }));
}

function writeTensor(writer, tensor, dtype, pools, random) {
  if (tensor.shape.length === 1) {
    writer.append(encode(new Float32Array(tensor.shape[0]).fill(1), dtype));
    return;
  }
  const rows = pools.rows(tensor);
  let start = (random() % (rows.length / tensor.rowBytes)) * tensor.rowBytes;
  for (let left = tensor.byteLength; left > 0; start = 0) {
    const part = rows.subarray(start, start + left);
    writer.append(part);
    left -= part.length;
  }
}

/** Returns the file's checksums. */
function writeFile(file, layout, transfer, dtype, pools, random) {
  const stored = new Map(layout.stages.flatMap(({ tensors }) => tensors.map((tensor) => [tensor.name, tensor])));
  const writer = new BlockWriter(file, transfer, new Control());
  try {
    writer.append(layout.header);
    for (const segment of layout.segments) {
      if (segment.kind === "padding") writer.appendZeros(segment.byteLength);
      else writeTensor(writer, stored.get(segment.name), dtype, pools, random);
    }
    return writer.finish();
  } finally {
    writer.close();
  }
}

/** The layout of `layer`, stored as the file of `original` is. */
function linkedLayout(layer, original) {
  const stages = original.stages.map((stage, index) => {
    const { tensors, ...place } = layer.stages[index];
    const renamed = stage.tensors.map((tensor, ordinal) => ({ ...tensor, name: tensors[ordinal].name }));
    return { ...stage, ...place, tensors: renamed };
  });
  return { ...original, name: layer.file, stages, linkTo: original.name };
}

/** Layouts of all layers; decoder layers from number `distinct` on are links. */
function layoutsOf(layers, settings, distinct) {
  const originals = new Map();
  return layers.map((layer) => {
    const number = layer.stages[0].layer;
    const original = number < distinct ? undefined : originals.get(number % distinct);
    if (original) return linkedLayout(layer, original);
    const layout = layoutLayer(layer, settings);
    originals.set(number, layout);
    return layout;
  });
}

function main() {
  const compression = { type: "string" };
  const { directory, shape, family, dtype, seed, values } = readShape({
    compression,
    "embedding-compression": compression,
    "head-compression": compression,
    "distinct-layers": { type: "string", default: "Infinity" },
  });
  const distinct = Number(values["distinct-layers"]);
  if (!(distinct >= 1)) refuse("--distinct-layers must be a positive number");
  const settings = compressionSettings({
    compression: values.compression,
    embeddingCompression: values["embedding-compression"],
    headCompression: values["head-compression"],
  });
  const config = configOf(shape, family, dtype);
  const layouts = [
    ...layoutsOf(layersOf(architectureOf(config, "config.json"), dtype), settings, distinct),
    layoutBytes("config.json", Buffer.from(`${JSON.stringify(config, null, 2)}\n`)),
  ];
  const total = layouts.reduce((sum, { size, linkTo }) => sum + (linkTo ? 0 : size), 0);
  claimDirectory(directory, total);

  const started = performance.now();
  const random = randomIntegers(seed);
  const pools = new RowPools(random, dtype);
  const transfer = native().createTransfer(2, stagingBytes);
  const checksumsOf = new Map();
  const files = layouts.map((layout) => {
    const { name, size, stages, linkTo } = layout;
    const file = path.join(directory, name);
    if (linkTo) fs.linkSync(path.join(directory, linkTo), file);
    const checksums = checksumsOf.get(linkTo) ?? writeFile(file, layout, transfer, dtype, pools, random);
    checksumsOf.set(name, checksums);
    console.error(`${name} written`);
    return { name, size, checksums, stages };
  });
  const manifest = {
    formatVersion: MANIFEST_VERSION,
    generator: "tools/make-store.mjs",
    source: { path: "random weights", identity: `random-${seed}`, files: [] },
    ...settings,
    config,
    files,
    tied: {},
    dropped: [],
  };
  fs.writeFileSync(path.join(directory, MANIFEST_FILE), encodeManifest(manifest));
  const seconds = (performance.now() - started) / 1000;
  console.log(`${directory}: ${formatBytes(total)} in ${formatDuration(seconds)} (${formatRate(total / seconds)})`);
}

main();
