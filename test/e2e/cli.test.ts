import { type ChildProcess, execFileSync } from "node:child_process";
import { cpSync, existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { quantizedFixtures } from "../helpers/golden.js";
import { runCli, temporaryDirectory } from "./run-cli.js";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const makeCheckpoint = path.resolve(import.meta.dirname, "../../tools/make-checkpoint.mjs");
const checkpoint = path.join(fixtures, "families", "llama");
const { directory, remove } = temporaryDirectory();
const store = path.join(directory, "store");

beforeAll(async () => {
  const { exitCode, stderr } = await runCli(["decompose", checkpoint, "-o", store]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
});
afterAll(remove);

describe("help and version", () => {
  it("prints the help without arguments", async () => {
    const { exitCode, stdout, stderr } = await runCli([]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    for (const command of ["generate", "chat", "decompose", "verify", "inspect", "bench", "doctor", "build"]) {
      expect(stdout).toMatch(new RegExp(`^  ${command} `, "m"));
    }
  });

  it("prints the version of package.json", async () => {
    const { version } = JSON.parse(readFileSync(path.join(fixtures, "../../package.json"), "utf8"));
    expect(await runCli(["--version"])).toEqual({ exitCode: 0, stdout: `${version}\n`, stderr: "" });
  });
});

describe("usage errors", () => {
  it.each([
    [["decompos", "x"], "unknown command 'decompos' (Did you mean decompose?)"],
    [["frobnicate"], "unknown command 'frobnicate'. See layerstream --help."],
    [["decompose", "x", "--compresion", "8bit"], "unknown option '--compresion' (Did you mean --compression?)"],
    [["generate", "x", "--memroy", "1GiB"], "unknown option '--memroy' (Did you mean --memory?)"],
    [["decompose"], "missing required argument 'checkpoint'. See layerstream --help."],
    [["verify", "a", "b"], "too many arguments for 'verify'. Expected 1 argument but got 2. See layerstream --help."],
    [
      ["decompose", "x", "--compression", "2bit"],
      "option '--compression <kind>' argument '2bit' is invalid. Allowed choices are none, lossless, 8bit, 4bit.",
    ],
    [
      ["generate", "x", "-p", "a", "--memory", "lots"],
      "option '--memory <size>' argument 'lots' is invalid. Write for example 4GiB, 900MB or 1.5g.",
    ],
    [
      ["bench", "x", "--trace", "/no-such-directory/trace.json"],
      "option '--trace <file>' argument '/no-such-directory/trace.json' is invalid. It must be a file in a directory that exists.",
    ],
    [
      ["inspect", "x", "--kv-dtype", "bf16"],
      "--device, --max-seq-len and --kv-dtype say nothing without --memory or --vram. Give one of these too, or leave them out.",
    ],
    [
      ["generate", "x"],
      "The prompt is missing or given twice. Give one of --prompt TEXT, --prompt - (for stdin) and --tokens 1,2,3.",
    ],
  ])("%j", async (args, message) => {
    expect(await runCli(args)).toEqual({
      exitCode: 2,
      stdout: "",
      stderr: `layerstream: INVALID_ARGUMENT: ${message}\n`,
    });
  });
});

describe("failures", () => {
  it.each([
    [["inspect", path.join(directory, "nowhere")], "CHECKPOINT_NOT_FOUND"],
    [["decompose", path.join(directory, "nowhere")], "CHECKPOINT_NOT_FOUND"],
    [["generate", path.join(directory, "nowhere"), "-p", "a"], "CHECKPOINT_NOT_FOUND"],
    [["verify", checkpoint], "STORE_INVALID"],
  ])("%j exits with 1 and one line", async (args, code) => {
    const { exitCode, stdout, stderr } = await runCli(args);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toMatch(new RegExp(`^layerstream: ${code}: [^\n]+\n$`));
  });

  it("prints a stack only when asked", async () => {
    const args = ["verify", checkpoint];
    expect((await runCli(args)).stderr).not.toContain(" at ");
    expect((await runCli(args, { env: { LAYERSTREAM_DEBUG: "1" } })).stderr).toMatch(/\n\s+at /);
  });
});

describe("decompose, verify and inspect", () => {
  it("finds a finished store complete", async () => {
    const text = await runCli(["decompose", checkpoint, "-o", store]);
    expect(text).toMatchObject({ exitCode: 0, stderr: "" });
    expect(text.stdout).toContain("already complete");
    const json = JSON.parse((await runCli(["decompose", checkpoint, "-o", store, "--json"])).stdout);
    expect(json).toMatchObject({ store, alreadyDone: true, compression: "none", dropped: [], deleted: [] });
  });

  it("quantizes weights that come quantized on request only", async () => {
    const args = ["decompose", path.join(quantizedFixtures, "gptq_2bit"), "-o", path.join(directory, "requantized")];
    const refused = await runCli([...args, "--compression", "4bit"]);
    expect(refused.exitCode).toBe(2);
    expect(refused.stderr).toMatch(/^layerstream: INVALID_ARGUMENT: .*--requantize/);
    const done = await runCli([...args, "--compression", "4bit", "--requantize", "--json"]);
    expect(JSON.parse(done.stdout)).toMatchObject({ compression: "4bit", alreadyDone: false });
  });

  it("verifies a store, and names what is damaged", async () => {
    const good = await runCli(["verify", store]);
    expect(good).toMatchObject({ exitCode: 0, stderr: "" });
    expect(good.stdout).toContain("is undamaged");

    const damaged = path.join(directory, "damaged");
    cpSync(store, damaged, { recursive: true });
    const file = path.join(damaged, "layer-000.safetensors");
    const bytes = readFileSync(file);
    bytes[bytes.length - 5000] = (bytes.at(-5000) ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const bad = await runCli(["verify", damaged]);
    expect(bad.exitCode).toBe(1);
    expect(bad.stdout).toMatch(/^layer-000\.safetensors: /);
    expect(bad.stderr).toBe(
      `layerstream: STORE_CORRUPT: ${damaged} has 1 problem. Delete the store and decompose the checkpoint again.\n`,
    );
    const json = await runCli(["verify", damaged, "--json"]);
    expect(json.exitCode).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({ ok: false, problems: [{ file: "layer-000.safetensors" }] });

    truncateSync(file, 100);
    expect(await runCli(["verify", damaged])).toMatchObject({ exitCode: 1 });
  });

  it.each([
    ["checkpoint", checkpoint],
    ["store", store],
  ])("inspects a %s", async (kind, model) => {
    const { stdout } = await runCli(["inspect", model, "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({ kind, family: "llama" });
    const text = await runCli(["inspect", model]);
    expect(text).toMatchObject({ exitCode: 0, stderr: "" });
    expect(text.stdout).toContain("llama");
  });

  it("says where a store would live in a budget, and what a token would take", async () => {
    const { stdout } = await runCli(["inspect", store, "--memory", "1GiB", "--max-seq-len", "64", "--json"]);
    const { family, residency, predictedSecondsPerToken } = JSON.parse(stdout);
    expect(family).toBe("llama");
    expect(residency).toMatchObject({ memoryBudgetBytes: 2 ** 30, maxSeqLen: 64, streamedBytes: 0 });
    expect(residency.stages.map(({ tier }: { tier: string }) => tier)).toContain("held");
    expect(predictedSecondsPerToken).toBeGreaterThan(0);
    const text = await runCli(["inspect", store, "--memory", "1GiB"]);
    expect(text.stdout).toMatch(/^ {2}memory budget +1\.00 GiB; the least is \d+ MiB$/m);
    expect(text.stdout).toMatch(/^ {2}mlp +\d+ held: (.+) of \1 in memory$/m);
    const device = ["--device", "cpu-discrete", "--memory", "1GiB", "--max-seq-len", "64", "--vram"];
    const beside = await runCli(["inspect", store, ...device, "512MiB"]);
    expect(beside.stdout).toMatch(/^ {2}vram budget +512 MiB; the least is [\d.]+ MiB$/m);
    expect(beside.stdout).toMatch(/^ {2}held on the device +[\d.]+ [KM]iB$/m);
    expect(beside.stdout).toMatch(/from the disk, [\d.]+ [GM]B\/s to the device, /);
    expect((await runCli(["inspect", store, ...device, "1KiB"])).stderr).toContain(
      "A vram budget of 1.00 KiB cannot work",
    );
    const unified = await runCli(["inspect", store, "--device", "cpu", "--vram", "1GiB"]);
    expect(unified).toMatchObject({ exitCode: 2, stdout: "" });
    expect(unified.stderr).toContain("has no memory of its own");
    const small = await runCli(["inspect", store, "--memory", "1MiB"]);
    expect(small).toMatchObject({ exitCode: 1, stdout: "" });
    expect(small.stderr).toContain("MEMORY_BUDGET_TOO_SMALL");
    const files = await runCli(["inspect", checkpoint, "--memory", "1GiB"]);
    expect(files).toMatchObject({ exitCode: 2, stdout: "" });
    expect(files.stderr).toContain("is not a layer store");
  });
});

describe("generate", () => {
  const { input_ids: prompt, greedy } = JSON.parse(readFileSync(path.join(checkpoint, "expected.json"), "utf8"));
  const args = ["--tokens", prompt.join(","), "--max-new-tokens", `${greedy.length}`, "--ignore-eos"];

  it("streams the reference's tokens, from a store and from a checkpoint", async () => {
    const env = { LAYERSTREAM_CACHE: path.join(directory, "cache") };
    for (const model of [store, checkpoint]) {
      const result = await runCli(["generate", model, ...args], { env });
      expect(result).toEqual({ exitCode: 0, stdout: `${greedy.join(" ")} \n`, stderr: "" });
    }
    expect(existsSync(env.LAYERSTREAM_CACHE)).toBe(true);
  });

  it("prints one JSON object, and what it cost", async () => {
    const { exitCode, stdout, stderr } = await runCli(["generate", store, ...args, "--json", "--stats"]);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      text: "",
      tokens: greedy,
      promptTokens: prompt.length,
      finishReason: "length",
      stats: { promptTokens: prompt.length, generatedTokens: greedy.length },
    });
    expect(stderr).toMatch(/streamed per token[\s\S]*peak memory/);
  });

  it("applies LoRA adapters, and refuses one that is not there", async () => {
    const base = path.join(fixtures, "families", "llama_bias");
    const adapter = path.join(fixtures, "lora", "llama_attention");
    const tokens = async (...lora: string[]) => {
      const options = [
        "--tokens",
        "1,5,9",
        "-n",
        "5",
        "--ignore-eos",
        "--cache-dir",
        path.join(directory, "lora"),
        "--json",
      ];
      const { exitCode, stdout, stderr } = await runCli(["generate", base, ...options, ...lora]);
      return exitCode === 0 ? (JSON.parse(stdout) as { tokens: number[] }).tokens : stderr;
    };
    const plain = await tokens();
    const adapted = await tokens("--lora", adapter);
    expect(adapted).toHaveLength(5);
    expect(adapted).not.toEqual(plain);
    expect(await tokens("--lora", adapter, "--lora", adapter)).not.toEqual(adapted);
    expect(await tokens("--lora", path.join(directory, "nowhere"))).toContain("LORA_INVALID");
  });

  it("repeats sampled tokens with the same seed", async () => {
    const sample = (seed: string) => runCli(["generate", store, ...args, "--temperature", "2", "--seed", seed]);
    const [first, again, other] = [await sample("5"), await sample("5"), await sample("6")];
    expect(again).toEqual(first);
    expect(other.stdout).not.toBe(first.stdout);
  });

  it.each([
    [["-p", "hello"], "TOKENIZER_MISSING"],
    [["--tokens", "4000000000"], "TOKEN_OUT_OF_RANGE"],
    [["--tokens", "1", "--memory", "1MiB"], "MEMORY_BUDGET_TOO_SMALL"],
    [["--tokens", "1,2,3", "--max-seq-len", "2"], "PROMPT_TOO_LONG"],
  ])("refuses %j in one line", async (extra, code) => {
    const { exitCode, stdout, stderr } = await runCli(["generate", store, ...extra]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toMatch(new RegExp(`^layerstream: ${code}: [^\n]+\n$`));
  });

  it("refuses to chat without a chat template", async () => {
    const { exitCode, stderr } = await runCli(["chat", store]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^layerstream: CHAT_TEMPLATE_INVALID: [^\n]+\n$/);
  });
});

describe("bench", () => {
  it("prints the figures as JSON, and as a table", async () => {
    const options = ["--roofline-seconds", "0.05", "--new-tokens", "4"];
    const { exitCode, stdout, stderr } = await runCli(["bench", store, ...options, "--json"]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const figures = JSON.parse(stdout);
    for (const name of [
      "tokensPerSecond",
      "secondsPerToken",
      "prefillTokensPerSecond",
      "bytesStreamedPerToken",
      "heldBytes",
      "diskBytesPerSecond",
      "diskRooflineBytesPerSecond",
      "ioWaitSeconds",
      "computeSeconds",
      "peakMemoryBytes",
    ]) {
      expect(figures[name], name).toBeGreaterThanOrEqual(0);
    }
    // This model fits: nothing is streamed.
    expect(figures).toMatchObject({ bytesStreamedPerToken: 0, rooflineFraction: null });
    const { bytesMultipliedPerToken, memoryBytesPerSecond, memoryFraction, secondsPerToken } = figures;
    expect(memoryFraction).toBe(bytesMultipliedPerToken / memoryBytesPerSecond / secondsPerToken);
    expect(bytesMultipliedPerToken).toBeGreaterThan(0);
    expect(bytesMultipliedPerToken).toBeLessThanOrEqual(figures.heldBytes);
    expect(figures.heldBytes).toBeGreaterThan(0);
    expect((await runCli(["bench", store, ...options])).stdout).toMatch(/^ +decode +\S+ tokens a second/);
  });

  it("refuses a prompt that leaves no room for tokens", async () => {
    const { exitCode, stderr } = await runCli(["bench", store, "--prompt-tokens", "100", "--max-seq-len", "101"]);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/^layerstream: INVALID_ARGUMENT: Fewer than two tokens [^\n]+\n$/);
  });
});

describe("doctor", () => {
  it("finds this machine in order", async () => {
    const { exitCode, stdout } = await runCli(["doctor", "--directory", directory, "--json"]);
    const { ok, checks } = JSON.parse(stdout);
    expect({ exitCode, ok, failing: checks.filter((check: { ok: boolean }) => !check.ok) }).toEqual({
      exitCode: 0,
      ok: true,
      failing: [],
    });
    const devices = checks.flatMap(({ device }: { device?: object }) => device ?? []);
    expect(devices).toContainEqual(expect.objectContaining({ name: "cpu", kind: "processor", memoryBytes: 0 }));
    for (const device of devices) {
      expect(device.reason ?? device.memoryBytesPerSecond, device.name).toBeTruthy();
    }
  });

  it("exits with 1 and the remedy when a directory is missing", async () => {
    const { exitCode, stdout, stderr } = await runCli(["doctor", "--directory", path.join(directory, "gone")]);
    expect(exitCode).toBe(1);
    expect(stdout).toContain("name another with --directory");
    expect(stderr).toMatch(/^layerstream: DEVICE_UNAVAILABLE: [^\n]+\n$/);
  });
});

describe("interruption", () => {
  it("ends quietly when the reader of its output has gone", async () => {
    const result = await runCli(["--help"], { onStart: (child) => child.stdout?.destroy() });
    expect(result).toMatchObject({ exitCode: 0, stderr: "" });
  });

  it("exits with 130 after Ctrl-C, and a later run ends the work", async () => {
    const large = path.join(directory, "large");
    const shape = ["--hidden", "1024", "--intermediate", "4096", "--heads", "8", "--layers", "2", "--vocab", "8000"];
    execFileSync(process.execPath, [makeCheckpoint, large, ...shape], { stdio: "ignore" });
    const target = path.join(directory, "interrupted");
    const args = ["decompose", large, "-o", target, "--compression", "4bit", "--workers", "1"];
    const stopOnceWriting = (child: ChildProcess) => {
      const timer = setInterval(() => {
        if (!existsSync(path.join(target, "layerstream.partial.json"))) return;
        clearInterval(timer);
        child.kill("SIGINT");
      }, 1);
    };
    expect(await runCli(args, { onStart: stopOnceWriting })).toEqual({ exitCode: 130, stdout: "", stderr: "" });
    expect(await runCli(["verify", target])).toMatchObject({ exitCode: 1, stdout: "" });
    expect(await runCli(args)).toMatchObject({ exitCode: 0, stderr: "" });
    expect(await runCli(["verify", target])).toMatchObject({ exitCode: 0, stderr: "" });

    const stopOnceSpeaking = (child: ChildProcess) => child.stdout?.once("data", () => child.kill("SIGINT"));
    const endless = ["generate", target, "--tokens", "1", "-n", "4000", "--ignore-eos", "--max-seq-len", "4096"];
    const stopped = await runCli(endless, { onStart: stopOnceSpeaking });
    expect(stopped).toMatchObject({ exitCode: 130, stderr: "" });
    expect(stopped.stdout).toMatch(/^\d+ /);
  });
});
