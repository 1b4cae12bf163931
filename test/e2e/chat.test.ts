import type { ChildProcess } from "node:child_process";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli, temporaryDirectory } from "./run-cli.js";

const demo = path.resolve(import.meta.dirname, "../fixtures/demo");
const { directory, remove } = temporaryDirectory();
const store = path.join(directory, "store");

beforeAll(async () => {
  expect(await runCli(["decompose", demo, "-o", store])).toMatchObject({ exitCode: 0, stderr: "" });
});
afterAll(remove);

describe("generate with text", () => {
  it("continues a prompt from stdin", async () => {
    const result = await runCli(["generate", store, "-p", "-", "-n", "6"], { input: "7 + 5 =" });
    expect(result).toMatchObject({ exitCode: 0, stderr: "" });
    expect(result.stdout).toMatch(/^ 12\b/);
  });

  it("ends before a stop string", async () => {
    const args = ["generate", store, "-p", "7 + 5 =", "-n", "6", "--json"];
    const whole = JSON.parse((await runCli(args)).stdout);
    const stopped = JSON.parse((await runCli([...args, "--stop", "2"])).stdout);
    expect(whole.text).toMatch(/^ 12\b/);
    expect(stopped).toMatchObject({ text: " 1", finishReason: "stop" });
  });
});

describe("chat from a pipe", () => {
  it("takes each line as a turn, and keeps the conversation", async () => {
    const input = "What is 7 + 5?\n\nWhat is 2 + 3?\n/exit\nWhat is 1 + 1?\n";
    const { exitCode, stdout, stderr } = await runCli(["chat", store, "--json"], { input });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const turns = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(turns).toHaveLength(2);
    expect(turns[0]).toMatchObject({ finishReason: "eos" });
    expect(turns[0].text).toContain("12");
    expect(turns[1].text).toContain("5");
    expect(turns[1].promptTokens).toBeGreaterThan(turns[0].promptTokens + turns[0].tokens);
  });

  it("knows its commands", async () => {
    const input = "What is 7 + 5?\n/stats\n/reset\n/dance\n";
    const { exitCode, stdout, stderr } = await runCli(["chat", store], { input });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toMatch(/12[\s\S]*peak memory[\s\S]*\/dance is no command/);
  });

  it("exits with 130 after Ctrl-C", async () => {
    const input = "Tell me a story.\n".repeat(1000);
    const stopOnceSpeaking = (child: ChildProcess) => child.stdout?.once("data", () => child.kill("SIGINT"));
    const { exitCode, stderr } = await runCli(["chat", store, "--ignore-eos"], { input, onStart: stopOnceSpeaking });
    expect({ exitCode, stderr }).toEqual({ exitCode: 130, stderr: "" });
  });

  it("exits with 1 when a turn fails", async () => {
    const input = `${"What is 7 + 5? ".repeat(200)}\n`;
    const { exitCode, stderr } = await runCli(["chat", store, "--max-seq-len", "64"], { input });
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^layerstream: PROMPT_TOO_LONG: [^\n]+\n$/);
  });
});
