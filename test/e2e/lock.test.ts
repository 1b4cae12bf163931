import { execFile, execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";
import { temporaryDirectory } from "./run-cli.js";

const { directory, remove } = temporaryDirectory();
afterAll(remove);

/** A program that takes the lock, writes "begin" and "end" into a log with a pause between, and gives it back. */
const program = `
  import fs from "node:fs";
  import { setTimeout as sleep } from "node:timers/promises";
  import { withLock } from ${JSON.stringify(pathToFileURL(path.resolve(import.meta.dirname, "../../tools/lock.mjs")).href)};
  const [lock, log] = process.argv.slice(1);
  await withLock(lock, async () => {
    fs.appendFileSync(log, "begin\\n");
    await sleep(50);
    fs.appendFileSync(log, "end\\n");
  });
`;

function compete(processes: number, lock: string, log: string): Promise<unknown> {
  const args = ["--input-type=module", "-e", program, lock, log];
  return Promise.all(Array.from({ length: processes }, () => promisify(execFile)(process.execPath, args)));
}

describe("the lock of set-up", () => {
  it("lets one process at a time through", async () => {
    const folder = path.join(directory, "locks");
    const log = path.join(directory, "log");
    await compete(4, path.join(folder, "setup.lock"), log);
    expect(readFileSync(log, "utf8")).toBe("begin\nend\n".repeat(4));
    expect(readdirSync(folder)).toEqual([]);
  });

  it("is taken over from processes that died", async () => {
    const pid = execFileSync(process.execPath, ["-e", "console.log(process.pid)"], { encoding: "utf8" });
    const lock = path.join(directory, "stale.lock");
    const log = path.join(directory, "stale.log");
    writeFileSync(lock, pid);
    await compete(3, lock, log);
    expect(readFileSync(log, "utf8")).toBe("begin\nend\n".repeat(3));
  });
});
