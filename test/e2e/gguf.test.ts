/** The command line on a GGUF file. */
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { runCli, temporaryDirectory } from "./run-cli.js";

const fixture = path.resolve(import.meta.dirname, "../fixtures/gguf/llama_q8_0");
const { directory, remove } = temporaryDirectory();
const file = path.join(directory, "tiny.gguf");
const store = path.join(directory, "store");
copyFileSync(path.join(fixture, "model.gguf"), file);
afterAll(remove);

const expected = JSON.parse(readFileSync(path.join(fixture, "expected.json"), "utf8")) as {
  input_ids: number[];
  greedy: number[];
};

it("inspect describes it", async () => {
  const { exitCode, stdout } = await runCli(["inspect", file, "--json"]);
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ kind: "checkpoint", family: "llama", layerCount: 2, vocabSize: 620 });
  expect(stdout).toContain("q8_0");
});

it("generate continues text and tokens", async () => {
  const env = { LAYERSTREAM_CACHE: path.join(directory, "cache") };
  const greedy = ["--temperature", "0", "--max-new-tokens", "12", "--ignore-eos", "--json"];
  const tokens = await runCli(["generate", file, "--tokens", expected.input_ids.join(), ...greedy], { env });
  expect(tokens.stderr).toBe("");
  expect(JSON.parse(tokens.stdout)).toMatchObject({ tokens: expected.greedy });
  const text = await runCli(["generate", file, "-p", "Hello", ...greedy], { env });
  expect(JSON.parse(text.stdout)).toMatchObject({ promptTokens: expect.any(Number), text: expect.stringMatching(/./) });
});

it("decompose writes a store that lives without it", async () => {
  const made = await runCli(["decompose", file, "-o", store, "--delete-original"]);
  expect(made).toMatchObject({ exitCode: 0, stderr: "" });
  expect(existsSync(file)).toBe(false);
  expect((await runCli(["verify", store])).exitCode).toBe(0);
  const { exitCode, stdout } = await runCli(["generate", store, "-p", "Hello", "--max-new-tokens", "4", "--json"]);
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout).text).not.toBe("");
});
