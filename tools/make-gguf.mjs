#!/usr/bin/env node
/**
 * Writes a GGUF file of a Llama shape with random weights, for programs that read GGUF to be measured with.
 *
 *   node tools/make-gguf.mjs DIRECTORY [--type bf16|q8_0|q4_0|q4_1] [the options of make-checkpoint.mjs that name a shape]
 *
 * The file is DIRECTORY/model.gguf. Every matrix has the type; norms are 1; tokens are bytes, then "t259", "t260" and so on. The blocks of
 * the quantized types are those of ggml, 32 weights each. The same options give the same bytes.
 */
import fs from "node:fs";
import path from "node:path";
import { formatBytes, formatDuration } from "../dist/units.js";
import { refuse } from "./options.mjs";
import { encode, gaussianPool, poolValues, randomIntegers } from "./synthetic/random-weights.mjs";
import { claimDirectory, readShape } from "./synthetic/shape.mjs";

const ALIGNMENT = 32;
const BLOCK = 32;
const F32 = 0;

function halfBytes(value) {
  return encode(Float32Array.of(value), "f16");
}

/** Blocks of 32 weights: what precedes the codes, and the codes. */
function blocks(values, encodeBlock) {
  const parts = [];
  for (let first = 0; first < values.length; first += BLOCK)
    parts.push(...encodeBlock(values.subarray(first, first + BLOCK)));
  return Buffer.concat(parts);
}

/** Weight i in the low half of byte i, weight i + 16 in the high half. */
function nibbles(codes) {
  return Buffer.from(codes.slice(0, BLOCK / 2).map((code, i) => code | (codes[i + BLOCK / 2] << 4)));
}

function clampedCodes(block, code, most) {
  return Array.from(block, (value) => Math.max(0, Math.min(most, Math.floor(code(value)))));
}

/** `number` is ggml's; `bits` include scales. */
const types = {
  bf16: { number: 30, bits: 16, encode: (values) => encode(values, "bf16") },
  q8_0: {
    number: 8,
    bits: 8.5,
    encode: (values) =>
      blocks(values, (block) => {
        const scale = Math.max(...block.map(Math.abs)) / 127 || 1;
        return [halfBytes(scale), Buffer.from(Int8Array.from(block, (value) => Math.round(value / scale)).buffer)];
      }),
  },
  q4_0: {
    number: 2,
    bits: 4.5,
    encode: (values) =>
      blocks(values, (block) => {
        const largest = block.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
        const scale = largest / -8 || 1;
        return [halfBytes(scale), nibbles(clampedCodes(block, (value) => value / scale + 8.5, 15))];
      }),
  },
  q4_1: {
    number: 3,
    bits: 5,
    encode: (values) =>
      blocks(values, (block) => {
        const least = Math.min(...block);
        const scale = (Math.max(...block) - least) / 15 || 1;
        const codes = clampedCodes(block, (value) => (value - least) / scale + 0.5, 15);
        return [halfBytes(scale), halfBytes(least), nibbles(codes)];
      }),
  },
};

function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function text(value) {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** Metadata values with their types in front. */
const integer = (value) => Buffer.concat([u32(4), u32(value)]);
const float = (value) => Buffer.concat([u32(6), Buffer.from(Float32Array.of(value).buffer)]);
const string = (value) => Buffer.concat([u32(8), text(value)]);
const array = (type, elements) => Buffer.concat([u32(9), u32(type), u64(elements.length), ...elements]);

function metadataOf(shape) {
  const ids = Array.from({ length: shape.vocab }, (_, id) => id);
  const special = ["<unk>", "<s>", "</s>"];
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const names = [...special, ...bytes];
  return [
    ["general.architecture", string("llama")],
    ["general.alignment", integer(ALIGNMENT)],
    ["llama.block_count", integer(shape.layers)],
    ["llama.context_length", integer(shape.context)],
    ["llama.embedding_length", integer(shape.hidden)],
    ["llama.feed_forward_length", integer(shape.intermediate)],
    ["llama.attention.head_count", integer(shape.heads)],
    ["llama.attention.head_count_kv", integer(shape.kvHeads)],
    ["llama.attention.layer_norm_rms_epsilon", float(1e-5)],
    ["llama.rope.freq_base", float(500000)],
    ["llama.rope.dimension_count", integer(shape.headDim)],
    ["llama.vocab_size", integer(shape.vocab)],
    ["tokenizer.ggml.model", string("llama")],
    [
      "tokenizer.ggml.tokens",
      array(
        8,
        ids.map((id) => text(names[id] ?? `t${id}`)),
      ),
    ],
    [
      "tokenizer.ggml.scores",
      array(
        6,
        ids.map((id) => Buffer.from(Float32Array.of(-id).buffer)),
      ),
    ],
    // Unknown, control, bytes, normal.
    [
      "tokenizer.ggml.token_type",
      array(
        5,
        ids.map((id) => u32(id === 0 ? 2 : id < special.length ? 3 : id < names.length ? 6 : 1)),
      ),
    ],
    ["tokenizer.ggml.bos_token_id", integer(1)],
    ["tokenizer.ggml.eos_token_id", integer(2)],
  ];
}

/** Name and dimensions, the fastest first; a vector is a norm. */
function tensorsOf({ hidden, intermediate, heads, kvHeads, headDim, layers, vocab }) {
  const layer = (index) => [
    [`blk.${index}.attn_norm.weight`, [hidden]],
    [`blk.${index}.attn_q.weight`, [hidden, heads * headDim]],
    [`blk.${index}.attn_k.weight`, [hidden, kvHeads * headDim]],
    [`blk.${index}.attn_v.weight`, [hidden, kvHeads * headDim]],
    [`blk.${index}.attn_output.weight`, [heads * headDim, hidden]],
    [`blk.${index}.ffn_norm.weight`, [hidden]],
    [`blk.${index}.ffn_gate.weight`, [hidden, intermediate]],
    [`blk.${index}.ffn_up.weight`, [hidden, intermediate]],
    [`blk.${index}.ffn_down.weight`, [intermediate, hidden]],
  ];
  return [
    ["token_embd.weight", [hidden, vocab]],
    ...Array.from({ length: layers }, (_, index) => layer(index)).flat(),
    ["output_norm.weight", [hidden]],
    ["output.weight", [hidden, vocab]],
  ];
}

const padding = (length) => Buffer.alloc(-length & (ALIGNMENT - 1));

function headerOf(shape, tensors, type) {
  const infos = [];
  let offset = 0;
  for (const tensor of tensors) {
    infos.push(text(tensor.name), u32(tensor.dimensions.length), ...tensor.dimensions.map(u64));
    infos.push(u32(tensor.dimensions.length === 1 ? F32 : type.number), u64(offset));
    offset += tensor.bytes + padding(tensor.bytes).length;
  }
  const metadata = metadataOf(shape);
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32(3),
    u64(tensors.length),
    u64(metadata.length),
    ...metadata.flatMap(([key, value]) => [text(key), value]),
    ...infos,
  ]);
  return { header: Buffer.concat([header, padding(header.length)]), dataBytes: offset };
}

/** `bytes` of the pool, from a block that `random` chooses on, around its end. */
function writeWindow(descriptor, pool, blockBytes, bytes, random) {
  let at = (random() % (pool.length / blockBytes)) * blockBytes;
  for (let left = bytes; left > 0; at = 0) {
    const part = pool.subarray(at, at + left);
    fs.writeSync(descriptor, part);
    left -= part.length;
  }
}

const { directory, shape, seed, values } = readShape({ type: { type: "string", default: "bf16" } });
if (!Object.hasOwn(types, values.type)) refuse(`--type is one of ${Object.keys(types).join(", ")}`);
const type = types[values.type];
const tensors = tensorsOf(shape).map(([name, dimensions]) => {
  const count = dimensions.reduce((product, size) => product * size, 1);
  return { name, dimensions, bytes: (count * (dimensions.length === 1 ? 32 : type.bits)) / 8 };
});
const { header, dataBytes } = headerOf(shape, tensors, type);
claimDirectory(directory, header.length + dataBytes);

const start = performance.now();
const random = randomIntegers(seed);
const pool = type.encode(gaussianPool(random));
const blockBytes = (pool.length / poolValues) * BLOCK;
const file = path.join(directory, "model.gguf");
const descriptor = fs.openSync(file, "wx");
fs.writeSync(descriptor, header);
for (const { dimensions, bytes } of tensors) {
  if (dimensions.length === 1) fs.writeSync(descriptor, Buffer.from(new Float32Array(dimensions[0]).fill(1).buffer));
  else writeWindow(descriptor, pool, blockBytes, bytes, random);
  fs.writeSync(descriptor, padding(bytes));
}
fs.fsyncSync(descriptor);
fs.closeSync(descriptor);
const seconds = (performance.now() - start) / 1000;
console.log(`${file}: ${formatBytes(header.length + dataBytes)} in ${formatDuration(seconds)}`);
