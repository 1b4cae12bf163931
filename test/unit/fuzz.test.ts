import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const tools = path.join(import.meta.dirname, "../../tools");
const targets = readdirSync(path.join(tools, "fuzz")).filter((name) => name.endsWith(".mjs"));

it.each(targets)("%s: no damaged file of 2000 crashes, hangs or exhausts its reader", async (name) => {
  const target = path.basename(name, ".mjs");
  const options = ["--target", target, "--cases", "2000", "--seed", "1"];
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(tools, "fuzz.mjs"), ...options]);
  expect(stdout).toContain(`${target}: 2000 cases with seed 1, 0 failures`);
});
