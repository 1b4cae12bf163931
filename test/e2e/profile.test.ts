/** profilingMode: that its parts add up, that it changes no result, and what a trace file holds. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AutoModel, type LoadOptions, type PhaseProfile } from "../../dist/index.js";
import { writeCheckpoint } from "../helpers/checkpoint.js";
import { fixtureCases, goldenCases } from "../helpers/golden.js";
import { runCli, temporaryDirectory } from "./run-cli.js";

interface TraceEvent {
  ph: string;
  tid: number;
  name: string;
  ts: number;
  dur: number;
  args: { name?: string; stage?: string; bytes?: number };
}

const { directory, remove } = temporaryDirectory();
afterAll(remove);

const cases = goldenCases(fixtureCases);
const dense = caseNamed("llama");
const NEW_TOKENS = 4;

function caseNamed(name: string) {
  const found = cases.find((item) => item.name === name);
  if (!found) throw new Error(`test/fixtures/families/${name} is missing`);
  return found;
}

async function profiled(checkpoint: { directory: string; inputIds: number[] }, options: LoadOptions = {}) {
  const model = await AutoModel.fromPretrained(checkpoint.directory, {
    cacheDir: directory,
    hold: false,
    profilingMode: true,
    ...options,
  });
  try {
    const tokens = await model
      .generate(checkpoint.inputIds, { maxNewTokens: NEW_TOKENS, ignoreEos: true, temperature: 0 })
      .tokens();
    const profile = model.profile();
    const file = path.join(directory, "trace.json");
    const written = await model.writeTrace(file);
    const trace = JSON.parse(readFileSync(file, "utf8")) as { traceEvents: TraceEvent[]; otherData: object };
    return { tokens, profile, written, trace, stats: model.stats() };
  } finally {
    await model.dispose();
  }
}

function activitiesOf(phase: PhaseProfile, stage: string) {
  const found = phase.stages.find((item) => item.stage === stage);
  return new Map(found?.activities.map((item) => [item.activity, item]));
}

/** The rows of a trace by name: spans, in order of time. */
function rowsOf(events: readonly TraceEvent[]): Map<string, TraceEvent[]> {
  const rows = new Map<string, TraceEvent[]>();
  for (const row of events.filter(({ ph, name }) => ph === "M" && name === "thread_name")) {
    const spans = events.filter(({ ph, tid }) => ph === "X" && tid === row.tid);
    rows.set(
      row.args.name ?? "",
      spans.sort((a, b) => a.ts - b.ts || b.dur - a.dur),
    );
  }
  return rows;
}

describe("profilingMode", () => {
  it("accounts for all time of the passes, and changes no token", async () => {
    const { tokens, profile, stats } = await profiled(dense);
    expect(tokens).toEqual(dense.greedy.slice(0, NEW_TOKENS));
    expect(profile.prompt).toMatchObject({ passes: 1, tokens: dense.inputIds.length });
    expect(profile.decode).toMatchObject({ passes: NEW_TOKENS - 1, tokens: NEW_TOKENS - 1 });
    for (const phase of [profile.prompt, profile.decode]) {
      const inStages = phase.stages.reduce((sum, { seconds }) => sum + seconds, 0);
      expect(inStages).toBeCloseTo(phase.passSeconds, 6);
      for (const stage of phase.stages) {
        const inOps = stage.activities.reduce((sum, { seconds }) => sum + seconds, 0);
        const waits = stage.diskWaitSeconds + stage.copyWaitSeconds + stage.idleSeconds;
        expect(inOps + waits).toBeCloseTo(stage.seconds, 9);
      }
    }
    const read = [profile.prompt, profile.decode].flatMap(({ stages }) => stages.map(({ diskBytes }) => diskBytes));
    expect(read.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThanOrEqual(stats.bytesPerPass * NEW_TOKENS);
  });

  it("counts the arithmetic of products", async () => {
    const { profile } = await profiled(dense);
    const config = JSON.parse(readFileSync(path.join(dense.directory, "config.json"), "utf8"));
    const perToken = 2 * 3 * config.hidden_size * config.intermediate_size * config.num_hidden_layers;
    const operations = (phase: PhaseProfile) =>
      [...activitiesOf(phase, "mlp")]
        .filter(([name]) => name.startsWith("matmul"))
        .reduce((sum, [, activity]) => sum + activity.operations, 0);
    expect(operations(profile.decode)).toBe(perToken * (NEW_TOKENS - 1));
    expect(operations(profile.prompt)).toBe(perToken * dense.inputIds.length);
    const ops = activitiesOf(profile.decode, "attention");
    expect([...ops.keys()]).toEqual(expect.arrayContaining(["attention", "norm", "rope"]));
  });

  it("experts have stages of their own", async () => {
    const { profile, trace } = await profiled(caseNamed("qwen3_moe_mlp_only"));
    expect(profile.decode.stages.map(({ stage }) => stage)).toEqual(expect.arrayContaining(["moe", "expert"]));
    expect([...rowsOf(trace.traceEvents).keys()]).toContain("experts");
  });

  it("says what decompressing took", async () => {
    const checkpoint = path.join(directory, "pruned");
    writeCheckpoint(checkpoint, {
      dtype: "F32",
      hidden: 256,
      intermediate: 1100,
      edit: (tensors) => {
        // One weight of nine stays, as in a pruned matrix.
        for (const { bytes, shape } of tensors.values()) {
          for (let at = 0; shape.length === 2 && at < bytes.length; at += 4)
            if (at % 36 !== 0) bytes.fill(0, at, at + 4);
        }
      },
    });
    const { profile, trace } = await profiled({ directory: checkpoint, inputIds: [1, 2] }, { compression: "lossless" });
    const mlp = profile.decode.stages.find(({ stage }) => stage === "mlp");
    expect(mlp?.decodedBytes).toBeGreaterThan(mlp?.diskBytes ?? 0);
    expect(rowsOf(trace.traceEvents).get("decoders")?.[0]?.name).toBe("decode");
  });

  it("is refused to a model that was loaded without it", async () => {
    const model = await AutoModel.fromPretrained(dense.directory, { cacheDir: directory });
    try {
      expect(() => model.profile()).toThrow("profilingMode");
      await expect(model.writeTrace(path.join(directory, "none.json"))).rejects.toThrow("profilingMode");
      expect(readdirSync(directory).filter((name) => name.startsWith("none"))).toEqual([]);
    } finally {
      await model.dispose();
    }
  });
});

describe("a trace file", () => {
  it("has a row for each reader and stream, whose spans do not overlap", async () => {
    const { trace, written } = await profiled(dense, { device: "cpu-discrete" });
    const rows = rowsOf(trace.traceEvents);
    expect([...rows.keys()]).toEqual(
      expect.arrayContaining(["JavaScript", "pass thread", "compute stream", "copy stream", "reader 1"]),
    );
    expect(trace.traceEvents.filter(({ ph }) => ph === "X")).toHaveLength(written.spans);
    expect(trace.otherData).toEqual({ spans: written.spans, droppedSpans: 0 });
    for (const [name, spans] of rows) {
      let end = 0;
      for (const span of spans.filter((item) => item.name !== "pass")) {
        expect(span.dur).toBeGreaterThanOrEqual(0);
        // Times are nanoseconds written as microseconds.
        expect(span.ts, `${name}: ${span.name}`).toBeGreaterThanOrEqual(end - 1e-3);
        end = span.ts + span.dur;
      }
    }
    expect(rows.get("pass thread")?.filter(({ name }) => name === "pass")).toHaveLength(NEW_TOKENS);
    expect(rows.get("compute stream")?.some(({ args }) => args.stage === "layers.1.mlp" && (args.bytes ?? 0) > 0)).toBe(
      true,
    );
  });

  it("--profile and --trace of the command line", async () => {
    const file = path.join(directory, "cli.json");
    const args = ["generate", dense.directory, "--tokens", "1,2,3", "--max-new-tokens", "3", "--cache-dir", directory];
    const text = await runCli([...args, "--profile", "--trace", file]);
    expect(text.exitCode).toBe(0);
    expect(text.stderr).toMatch(/decode: 2 passes, 2 tokens/);
    expect(text.stderr).toMatch(/attention {2}/);
    expect(text.stderr).toContain(`${file}: `);
    expect(JSON.parse(readFileSync(file, "utf8")).traceEvents.length).toBeGreaterThan(10);
    const json = await runCli([...args, "--profile", "--json"]);
    expect(JSON.parse(json.stdout).profile.decode.passes).toBe(2);
    expect(json.stderr).toBe("");
  });
});
