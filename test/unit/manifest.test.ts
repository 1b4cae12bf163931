import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { isLayerStore, openLayerStore, storePathFor } from "../../dist/checkpoint/layer-store.js";
import type { Manifest, StoredFile } from "../../dist/checkpoint/manifest.js";
import { encodeManifest, readManifest } from "../../dist/checkpoint/manifest-text.js";
import { temporaryDirectory } from "../helpers/files.js";

function manifest(): Manifest {
  const tensors = [
    { name: "norm", format: "f32" as const, shape: [16], offset: 4096, byteLength: 64, rowBytes: 64 },
    { name: "w", format: "8bit" as const, shape: [4, 70], offset: 4160, byteLength: 528, rowBytes: 132, block: 64 },
  ];
  const stages = [{ name: "mlp" as const, layer: 0, offset: 4096, length: 4096, tensors }];
  return {
    formatVersion: 1,
    generator: "test",
    source: { path: "/source", identity: "abc", files: [] },
    compression: "8bit",
    embeddingCompression: "8bit",
    headCompression: "none",
    config: { model_type: "llama", deep: { a: [1, null] } },
    files: [
      { name: "layer-000.safetensors", size: 8192, checksums: "01234567", stages },
      { name: "config.json", size: 3, checksums: "89abcdef", stages: [] },
    ],
    tied: { "lm_head.weight": "model.embed_tokens.weight" },
    dropped: ["extra"],
    checksum: "",
  };
}

function writeManifest(text: string | Uint8Array): string {
  const directory = temporaryDirectory();
  writeFileSync(path.join(directory, "layerstream.json"), text);
  return directory;
}

function layer(value: Manifest): StoredFile {
  return value.files[0] as StoredFile;
}

describe("readManifest", () => {
  it("reads what encodeManifest wrote", async () => {
    const { checksum: _, ...expected } = manifest();
    const { checksum, ...read } = await readManifest(writeManifest(encodeManifest(expected)));
    expect(read).toEqual(expected);
    expect(checksum).toMatch(/^[0-9a-f]{8}$/);
  });

  it("takes an order of columns behind the tensors of its stage", async () => {
    const value = manifest();
    Object.assign(layer(value).stages[0]?.tensors[1] ?? {}, { columnOrder: 4688 });
    const read = await readManifest(writeManifest(encodeManifest(value)));
    expect(layer(read).stages[0]?.tensors[1]?.columnOrder).toBe(4688);
  });

  /** A matrix of 100 rows of 1 KiB; three LZ4 blocks of at most 40 rows, the second one as it is. */
  function compressedManifest(change: object = {}, blocks: object = {}): Manifest {
    const value = manifest();
    const lz4 = { rows: 40, bytes: [1000, 40 * 1024, 200], ...blocks };
    const place = { offset: 4160, byteLength: 42_160, rowBytes: 1024, lz4 };
    const tensor = { name: "w", format: "f32" as const, shape: [100, 256], ...place, ...change };
    const [stage] = layer(value).stages;
    if (stage) Object.assign(stage, { length: 12 * 4096, tensors: [stage.tensors[0], tensor] });
    Object.assign(layer(value), { size: 13 * 4096 });
    return value;
  }

  it("takes LZ4 blocks", async () => {
    const read = await readManifest(writeManifest(encodeManifest(compressedManifest())));
    expect(layer(read).stages[0]?.tensors[1]?.lz4).toEqual({ rows: 40, bytes: [1000, 40 * 1024, 200] });
  });

  it.each<[string, string, Manifest]>([
    ["too few", "need 3", compressedManifest({}, { bytes: [1000, 40 * 1024] })],
    ["too many", "need 3", compressedManifest({}, { bytes: [1000, 40 * 1024, 100, 100] })],
    ["for more rows than there are", "need 1", compressedManifest({}, { rows: 400 })],
    ["larger than their rows", "for 40960", compressedManifest({}, { bytes: [1000, 40 * 1024 + 1, 199] })],
    ["larger than the last rows", "for 20480", compressedManifest({}, { bytes: [1000, 10_000, 31_160] })],
    ["too small to become so many bytes", "for 40960", compressedManifest({}, { bytes: [100, 40 * 1024, 1100] })],
    ["of no bytes", "bytes", compressedManifest({}, { bytes: [0, 40 * 1024, 1200] })],
    ["of no rows", "rows", compressedManifest({}, { rows: 0 })],
    ["that are no whole pages", "not whole pages", compressedManifest({}, { rows: 34 })],
    ["of another size in all", "blocks of 42160", compressedManifest({ byteLength: 42_161 })],
    ["beyond the stage", "leaves its stage", compressedManifest({ offset: 12_000 })],
    ["in rows of another size", "takes 1024", compressedManifest({ rowBytes: 512 })],
    ["of a vector", "compressed vector", compressedManifest({ shape: [256] }, { rows: 1, bytes: [1000] })],
    [
      "that no reader has room for",
      "too many",
      compressedManifest({ shape: [1 << 20, 256] }, { rows: 1 << 20, bytes: [42_160] }),
    ],
  ])("refuses LZ4 blocks %s", async (_, part, value) => {
    await expect(readManifest(writeManifest(encodeManifest(value)))).rejects.toMatchObject({
      code: "STORE_INVALID",
      message: expect.stringContaining(part),
    });
  });

  it("notices every flipped bit", async () => {
    const bytes = Buffer.from(encodeManifest(manifest()));
    const directory = temporaryDirectory();
    const file = path.join(directory, "layerstream.json");
    for (let position = 0; position < bytes.length; position++) {
      const damaged = Buffer.from(bytes);
      damaged[position] = (damaged[position] ?? 0) ^ (1 << (position % 8));
      writeFileSync(file, damaged);
      await expect(readManifest(directory), `byte ${position}`).rejects.toMatchObject({
        code: expect.stringMatching(/^STORE_(CORRUPT|OUTDATED)$/),
      });
    }
  });

  it.each([
    ["cut short", (text: string) => text.slice(0, -20)],
    ["extended", (text: string) => `${text} `],
    ["reformatted", (text: string) => JSON.stringify(JSON.parse(text))],
    ["empty", () => ""],
  ])("is corrupt when %s", async (_, change) => {
    const directory = writeManifest(change(encodeManifest(manifest())));
    await expect(readManifest(directory)).rejects.toMatchObject({ code: "STORE_CORRUPT" });
  });

  it("says that a newer layerstream wrote it", async () => {
    const newer = encodeManifest({ ...manifest(), formatVersion: 2, novelty: true } as Manifest);
    await expect(readManifest(writeManifest(newer))).rejects.toMatchObject({
      code: "STORE_OUTDATED",
      message: expect.stringContaining("version 2"),
    });
  });

  it("says that a directory is no store", async () => {
    const directory = temporaryDirectory();
    await expect(readManifest(directory)).rejects.toMatchObject({ code: "STORE_INVALID" });
    await expect(readManifest(path.join(directory, "gone"))).rejects.toMatchObject({ code: "STORE_INVALID" });
    expect(await isLayerStore(directory)).toBe(false);
  });

  it.each<[string, string, (value: Manifest) => unknown]>([
    ["a path for a name", "plain file name", (m) => Object.assign(layer(m), { name: "../layer" })],
    ["a file twice", "twice", (m) => m.files.push(layer(m))],
    ["no files", "files", (m) => m.files.splice(0)],
    ["a negative size", "size", (m) => Object.assign(layer(m), { size: -1 })],
    ["a size of 2^53", "size", (m) => Object.assign(layer(m), { size: 2 ** 53 })],
    ["too few checksums", "checksums", (m) => Object.assign(layer(m), { checksums: "" })],
    ["an unaligned stage", "whole pages", (m) => Object.assign(layer(m).stages[0] ?? {}, { offset: 4100 })],
    ["a stage past the end", "leaves the file", (m) => Object.assign(layer(m).stages[0] ?? {}, { length: 8192 })],
    [
      "overlapping stages",
      "overlaps",
      (m) =>
        layer(m).stages.push({
          name: "head",
          layer: -1,
          offset: 4096,
          length: 4096,
          tensors: [{ name: "x", format: "f32", shape: [1], offset: 4096, byteLength: 4, rowBytes: 4 }],
        }),
    ],
    [
      "a tensor past its stage",
      "leaves its stage",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { offset: 8000 }),
    ],
    ["overlapping tensors", "overlaps", (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { offset: 4100 })],
    ["a tensor twice", "twice", (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { name: "norm" })],
    [
      "a wrong row size",
      "takes 4 rows of 132",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { rowBytes: 66 }),
    ],
    ["a wrong shape", "takes 8 rows", (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { shape: [8, 70] })],
    [
      "quantized rows without a block",
      "wrong block",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { block: undefined }),
    ],
    [
      "blocks that its format cannot have",
      "wrong block",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { block: 48, rowBytes: 100, byteLength: 400 }),
    ],
    [
      "part of a super-block",
      "wrong block",
      (m) =>
        Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, {
          format: "q4_k",
          shape: [1, 320],
          block: 256,
          rowBytes: 180,
          byteLength: 180,
        }),
    ],
    ["an unknown format", "format", (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { format: "3bit" })],
    [
      "an order of columns past its stage",
      "leaves its stage",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { columnOrder: 8192 - 276 }),
    ],
    [
      "an order of columns within its matrix",
      "overlaps",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { columnOrder: 4684 }),
    ],
    [
      "an order of columns between its numbers",
      "order of columns",
      (m) => Object.assign(layer(m).stages[0]?.tensors[1] ?? {}, { columnOrder: 4690 }),
    ],
    [
      "an order of columns of a vector",
      "vector norm",
      (m) => Object.assign(layer(m).stages[0]?.tensors[0] ?? {}, { columnOrder: 4688 }),
    ],
    ["an unknown field", "extra", (m) => Object.assign(m, { extra: 1 })],
  ])("refuses %s, though the checksum is right", async (_, reason, change) => {
    const value = manifest();
    change(value);
    const { checksum, ...rest } = value;
    const directory = writeManifest(encodeManifest(rest));
    await expect(readManifest(directory)).rejects.toMatchObject({
      code: "STORE_INVALID",
      message: expect.stringContaining(reason),
    });
    expect(checksum).toBe("");
  });
});

describe("openLayerStore", () => {
  function writeStore(): string {
    const directory = writeManifest(encodeManifest(manifest()));
    writeFileSync(path.join(directory, "layer-000.safetensors"), Buffer.alloc(8192));
    writeFileSync(path.join(directory, "config.json"), "{}\n");
    return directory;
  }

  it("finds files and tensors", async () => {
    const directory = writeStore();
    const store = await openLayerStore(directory);
    expect(store.path).toBe(directory);
    expect(store.filePath("config.json")).toBe(path.join(directory, "config.json"));
    expect(store.tensors.get("w")).toMatchObject({ file: { name: "layer-000.safetensors" }, tensor: { offset: 4160 } });
  });

  it("notices truncated, extended and missing files", async () => {
    const directory = writeStore();
    for (const [size, message] of [
      [8191, "has 8191 bytes instead of 8192"],
      [8193, "has 8193 bytes"],
    ] as const) {
      truncateSync(path.join(directory, "layer-000.safetensors"), size);
      await expect(openLayerStore(directory)).rejects.toMatchObject({
        code: "STORE_CORRUPT",
        file: path.join(directory, "layer-000.safetensors"),
        message: expect.stringContaining(message),
      });
    }
    const bare = writeManifest(readFileSync(path.join(directory, "layerstream.json")));
    await expect(openLayerStore(bare)).rejects.toMatchObject({
      code: "STORE_CORRUPT",
      message: expect.stringContaining("is missing"),
    });
  });
});

describe("storePathFor", () => {
  const checkpoint = { name: "owner--tiny model", identity: "0123456789abcdef" };

  it("keys by name, identity and settings", () => {
    const paths = [
      {},
      { compression: "4bit" as const },
      { compression: "4bit" as const, headCompression: "4bit" as const },
    ].map((settings) => path.basename(storePathFor(checkpoint, settings)));
    expect(paths).toEqual([
      "owner--tiny-model-0123456789ab-none",
      "owner--tiny-model-0123456789ab-4bit",
      "owner--tiny-model-0123456789ab-4bit-head-4bit",
    ]);
  });

  it("lies where the options or the environment say", () => {
    const parent = (options: object) => path.dirname(storePathFor(checkpoint, options));
    expect(parent({ savingPath: "/a", cacheDir: "/b" })).toBe("/a");
    expect(parent({ cacheDir: "/b" })).toBe("/b");
    const { LAYERSTREAM_CACHE, XDG_CACHE_HOME } = process.env;
    try {
      process.env.XDG_CACHE_HOME = "/xdg";
      delete process.env.LAYERSTREAM_CACHE;
      expect(parent({})).toBe("/xdg/layerstream");
      process.env.LAYERSTREAM_CACHE = "/own";
      expect(parent({})).toBe("/own");
    } finally {
      restore("LAYERSTREAM_CACHE", LAYERSTREAM_CACHE);
      restore("XDG_CACHE_HOME", XDG_CACHE_HOME);
    }
  });

  function restore(name: string, value: string | undefined): void {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }

  it("refuses an unknown compression", () => {
    expect(() => storePathFor(checkpoint, { compression: "5bit" as "4bit" })).toThrow('"5bit"');
  });
});
