/** Command lines of the tools: help, and mistakes in one line. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const folder = path.resolve(import.meta.dirname, "../../tools");
const tools = readdirSync(folder).filter(
  (name) => name.endsWith(".mjs") && /readOptions|readShape/.test(readFileSync(path.join(folder, name), "utf8")),
);

function run(name: string, ...options: string[]) {
  return spawnSync(process.execPath, [path.join(folder, name), ...options], { encoding: "utf8" });
}

describe.each(tools.filter((name) => name !== "options.mjs"))("tools/%s", (name) => {
  it("explains itself", () => {
    const { status, stdout, stderr } = run(name, "--help");
    expect(stderr).toBe("");
    expect(stdout).toContain(name === "bench.mjs" ? "npm run bench" : `node tools/${name}`);
    expect(stdout).not.toMatch(/^ ?\*/m);
    expect(status).toBe(0);
  });

  it("says a mistake in one line", () => {
    const { status, stdout, stderr } = run(name, "--no-such-option");
    expect(stderr).toMatch(/^[a-z-]+: Unknown option '--no-such-option' \(--help explains\)\n$/);
    expect(stdout).toBe("");
    expect(status).toBe(2);
  });
});

it.each([
  ["bench.mjs", ["--seconds", "soon"], 2, /--seconds takes a number from 0 up, not "soon"/],
  ["bench.mjs", ["--formats", "bf17"], 2, /--formats takes bf16, .*, not bf17/],
  ["make-store.mjs", ["here", "--hidden", "-5"], 2, /--hidden.* argument is ambiguous/],
  ["make-store.mjs", ["here", "--heads", "7", "--kv-heads", "2"], 2, /multiple of --kv-heads/],
  ["make-checkpoint.mjs", [folder], 2, /is not empty; name a new directory/],
  ["precision.mjs", ["no-such-directory"], 1, /ENOENT.*no-such-directory/],
])("tools/%s %j ends with %i", (name, options, code, message) => {
  const { status, stderr } = run(name, ...options);
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(stderr).toMatch(message);
  expect(status).toBe(code);
});
