import { cpSync, mkdirSync, renameSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../dist/checkpoint/checkpoint.js";
import { writeCheckpoint, writeIndex } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

function checkpointDirectory(options: Parameters<typeof writeCheckpoint>[1] = {}): string {
  const directory = path.join(temporaryDirectory(), "tiny");
  writeCheckpoint(directory, options);
  return directory;
}

async function failure(directory: string): Promise<{ code: string; message: string }> {
  const caught: unknown = await openCheckpoint(directory).then(
    () => new Error("opened"),
    (error: unknown) => error,
  );
  return caught as { code: string; message: string };
}

describe("openCheckpoint", () => {
  it.each([SINGLE, "pytorch_model.bin"])("says what to do where %s is a pointer of Git LFS", async (name) => {
    const directory = checkpointDirectory();
    rmSync(path.join(directory, SINGLE));
    const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 4976698672\n";
    writeFileSync(path.join(directory, name), pointer);
    const { code, message } = await failure(directory);
    expect(code).toBe("CHECKPOINT_NOT_FOUND");
    expect(message).toContain("git lfs pull");
  });

  it.each([1, 3])("lists tensors, shards and companions of %i shards", async (shards) => {
    const directory = path.join(temporaryDirectory(), "tiny");
    const written = writeCheckpoint(directory, { shards, files: { "tokenizer.json": "{}", "README.md": "no" } });
    const checkpoint = await openCheckpoint(directory);
    expect(checkpoint.name).toBe("tiny");
    expect(checkpoint.shards).toHaveLength(shards);
    expect([...checkpoint.tensors.keys()].sort()).toEqual([...written.keys()].sort());
    expect(checkpoint.companions.map(({ name }) => name)).toEqual([
      "config.json",
      "generation_config.json",
      "tokenizer.json",
    ]);
    expect(checkpoint.config.model_type).toBe("llama");
  });

  it.each<[string, string, string, (directory: string) => void]>([
    ["a missing directory", "CHECKPOINT_NOT_FOUND", "does not exist", (d) => rmSync(d, { recursive: true })],
    [
      "a file",
      "CHECKPOINT_NOT_FOUND",
      "not a directory",
      (d) => {
        rmSync(d, { recursive: true });
        writeFileSync(d, "");
      },
    ],
    [
      "an empty directory",
      "CHECKPOINT_NOT_FOUND",
      "no config.json",
      (d) => {
        rmSync(d, { recursive: true });
        mkdirSync(d);
      },
    ],
    ["no config", "CHECKPOINT_NOT_FOUND", "no config.json", (d) => rmSync(path.join(d, "config.json"))],
    [
      "a config that is not JSON",
      "CONFIG_INVALID",
      "not valid JSON",
      (d) => writeFileSync(path.join(d, "config.json"), "{"),
    ],
    [
      "a config that is a list",
      "CONFIG_INVALID",
      "not a JSON object",
      (d) => writeFileSync(path.join(d, "config.json"), "[]"),
    ],
    [
      "a config with a key twice",
      "CONFIG_INVALID",
      "twice",
      (d) => writeFileSync(path.join(d, "config.json"), '{"a":1,"a":2}'),
    ],
    [
      "a deep config",
      "CONFIG_INVALID",
      "nested",
      (d) => writeFileSync(path.join(d, "config.json"), '{"a":'.repeat(1000)),
    ],
    ["a huge config", "CONFIG_INVALID", "at most", (d) => truncateSync(path.join(d, "config.json"), 2 ** 30)],
    ["no weights", "CHECKPOINT_NOT_FOUND", "none of", (d) => rmSync(path.join(d, SINGLE))],
    [
      "weights under another name",
      "CHECKPOINT_NOT_FOUND",
      "in consolidated.00.pth only",
      (d) => renameSync(path.join(d, SINGLE), path.join(d, "consolidated.00.pth")),
    ],
    [
      "a store",
      "CHECKPOINT_NOT_FOUND",
      "layer store",
      (d) => renameSync(path.join(d, SINGLE), path.join(d, "layerstream.json")),
    ],
    ["a truncated shard", "SAFETENSORS_INVALID", "truncated", (d) => truncateSync(path.join(d, SINGLE), 20_000)],
    [
      "a shard that is a directory",
      "IO_ERROR",
      "not a regular file",
      (d) => {
        rmSync(path.join(d, SINGLE));
        mkdirSync(path.join(d, SINGLE));
      },
    ],
    [
      "a dangling link",
      "IO_ERROR",
      "does not exist",
      (d) => {
        rmSync(path.join(d, SINGLE));
        symlinkSync("gone", path.join(d, SINGLE));
      },
    ],
    [
      "a link out of the directory",
      "UNSAFE_PATH",
      "outside",
      (d) => {
        renameSync(path.join(d, SINGLE), path.join(d, "..", "elsewhere"));
        symlinkSync("../elsewhere", path.join(d, SINGLE));
      },
    ],
    [
      "a config link out of the directory",
      "UNSAFE_PATH",
      "outside",
      (d) => {
        rmSync(path.join(d, "config.json"));
        symlinkSync("/etc/passwd", path.join(d, "config.json"));
      },
    ],
  ])("refuses %s", async (_, code, reason, damage) => {
    const directory = checkpointDirectory();
    damage(directory);
    const error = await failure(directory);
    expect(error).toMatchObject({ name: "LayerstreamError", code });
    expect(error.message).toContain(reason);
    expect(error.message).toContain(directory);
    expect(error.message).not.toContain("\n");
  });

  it.each<[string, string, string, (directory: string) => void]>([
    ["that is not JSON", "SHARD_INDEX_INVALID", "not valid JSON", (d) => writeFileSync(path.join(d, INDEX), "{")],
    ["without weight_map", "SHARD_INDEX_INVALID", "weight_map", (d) => writeFileSync(path.join(d, INDEX), "{}")],
    ["that is empty", "SHARD_INDEX_INVALID", "empty", (d) => writeIndex(d, {})],
    ["with a number for a name", "SHARD_INDEX_INVALID", "not to a file name", (d) => writeIndex(d, { a: 1 })],
    ["with a missing shard", "SHARD_INDEX_INVALID", "missing", (d) => writeIndex(d, { a: "model-9.safetensors" })],
    ["with ../", "UNSAFE_PATH", "../model", (d) => writeIndex(d, { a: "../model.safetensors" })],
    ["with an absolute path", "UNSAFE_PATH", "/etc/passwd", (d) => writeIndex(d, { a: "/etc/passwd" })],
    ["with a Windows path", "UNSAFE_PATH", "C:", (d) => writeIndex(d, { a: "C:\\model.safetensors" })],
    [
      "with a tensor that no shard has",
      "SHARD_INDEX_INVALID",
      '"ghost"',
      (d) => writeIndex(d, { ghost: "model-1-of-2.safetensors" }),
    ],
    [
      "with a tensor in two shards",
      "SHARD_INDEX_INVALID",
      "again",
      (d) => {
        cpSync(path.join(d, "model-1-of-2.safetensors"), path.join(d, "copy.safetensors"));
        writeIndex(d, {
          "model.embed_tokens.weight": "model-1-of-2.safetensors",
          "model.norm.weight": "copy.safetensors",
        });
      },
    ],
  ])("refuses an index %s", async (_, code, reason, damage) => {
    const directory = checkpointDirectory({ shards: 2 });
    damage(directory);
    const error = await failure(directory);
    expect(error).toMatchObject({ name: "LayerstreamError", code });
    expect(error.message).toContain(reason);
  });

  it("follows links within the folder of a model in the Hugging Face cache, but not further", async () => {
    const cache = temporaryDirectory();
    const model = path.join(cache, "models--owner--tiny");
    const snapshot = path.join(model, "snapshots", "0123abc");
    writeCheckpoint(snapshot);
    mkdirSync(path.join(model, "blobs"));
    renameSync(path.join(snapshot, SINGLE), path.join(model, "blobs", "cafe"));
    symlinkSync("../../blobs/cafe", path.join(snapshot, SINGLE));
    const checkpoint = await openCheckpoint(snapshot);
    expect(checkpoint.name).toBe("owner--tiny");
    expect(checkpoint.shards[0]?.blob).toBe("cafe");

    utimesSync(path.join(model, "blobs", "cafe"), 1, 1);
    expect((await openCheckpoint(snapshot)).identity).toBe(checkpoint.identity);

    renameSync(path.join(model, "blobs", "cafe"), path.join(cache, "cafe"));
    rmSync(path.join(snapshot, SINGLE));
    symlinkSync("../../../cafe", path.join(snapshot, SINGLE));
    expect((await failure(snapshot)).code).toBe("UNSAFE_PATH");
  });
});

describe("identity", () => {
  const identityOf = async (directory: string) => (await openCheckpoint(directory)).identity;

  async function overwrite(file: string, position: number, value: number): Promise<void> {
    const handle = await open(file, "r+");
    await handle.write(Buffer.of(value), 0, 1, position);
    await handle.close();
  }

  it("is that of a copy that keeps the times", async () => {
    const directory = checkpointDirectory();
    const copy = path.join(temporaryDirectory(), "copy");
    utimesSync(path.join(directory, SINGLE), 1_700_000_000.5, 1_700_000_000.5);
    cpSync(directory, copy, { recursive: true, preserveTimestamps: true });
    expect(await identityOf(copy)).toBe(await identityOf(directory));
  });

  it.each<[string, (directory: string) => unknown]>([
    ["the weights, by one byte", (d) => overwrite(path.join(d, SINGLE), 40_000, 0x77)],
    ["the config", (d) => writeCheckpoint(d, { config: { rope_theta: 500 } })],
    ["the tokenizer", (d) => writeFileSync(path.join(d, "tokenizer.json"), '{"a":1}')],
    [
      "the number of shards",
      (d) => {
        rmSync(path.join(d, SINGLE));
        writeCheckpoint(d, { shards: 2 });
        rmSync(path.join(d, SINGLE), { force: true });
      },
    ],
  ])("changes with %s", async (_, change) => {
    const directory = checkpointDirectory({ files: { "tokenizer.json": "{}" } });
    const before = await identityOf(directory);
    await change(directory);
    expect(await identityOf(directory)).not.toBe(before);
  });

  it("tells weights apart even where all times have been set alike", async () => {
    const [one, other] = [checkpointDirectory({ seed: 1 }), checkpointDirectory({ seed: 2 })];
    for (const directory of [one, other]) utimesSync(path.join(directory, SINGLE), 0, 0);
    expect(await identityOf(one)).not.toBe(await identityOf(other));
  });
});
