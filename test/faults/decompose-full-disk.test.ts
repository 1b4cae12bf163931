import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { decompose } from "../../dist/decompose/decompose.js";
import { verifyStore } from "../../dist/decompose/verify.js";
import { writeCheckpoint } from "../helpers/checkpoint.js";
import { startDecompose } from "../helpers/child.js";
import { temporaryDirectory } from "../helpers/files.js";

const MIB = 1024 * 1024;

/** A directory on a file system of its own; undefined where this user or this container may not mount one. */
function mountTmpfs(bytes: number): string | undefined {
  const directory = temporaryDirectory();
  const mount = path.join(directory, "mount");
  mkdirSync(mount);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", mount], { stdio: "ignore" });
  } catch {
    return undefined;
  }
  onTestFinished(() => void execFileSync("umount", [mount]));
  return mount;
}

const canMount = process.platform === "linux" && process.getuid?.() === 0;

describe.skipIf(!canMount)("a full disk (needs root on Linux, to mount one)", () => {
  function checkpointOfTwoMiB(): string {
    const checkpoint = path.join(temporaryDirectory(), "checkpoint");
    writeCheckpoint(checkpoint, { hidden: 256, intermediate: 512 });
    return checkpoint;
  }

  it("is noticed before anything is written, with both numbers", async ({ skip }) => {
    const mount = mountTmpfs(2 * MIB);
    if (!mount) return skip("mounting is not permitted here");
    const checkpoint = checkpointOfTwoMiB();
    const failing = decompose({ checkpoint, store: path.join(mount, "a", "store") });
    await expect(failing).rejects.toMatchObject({
      code: "NO_SPACE",
      message: expect.stringMatching(/needs .*\(\d{7} bytes\), but only .*\(2097152 bytes\) are free/),
    });
    expect(readdirSync(mount)).toEqual([]);
  });

  it("that fills up in the middle ends the run; with more space it goes on", async ({ skip }) => {
    const mount = mountTmpfs(2 * MIB);
    if (!mount) return skip("mounting is not permitted here");
    const checkpoint = checkpointOfTwoMiB();
    const store = path.join(mount, "store");
    const { code, message } = await startDecompose({ checkpoint, store, workers: 1 }, { freeBytes: 1e12 }).result;
    expect(code).toBe("NO_SPACE");
    expect(message).toMatch(/the disk is full\..*again/);
    expect(readdirSync(store).filter((name) => /tmp|lock|layerstream\.json/.test(name))).toEqual([]);
    expect(readdirSync(store)).toContain("layer-000.safetensors");

    execFileSync("mount", ["-o", `remount,size=${16 * MIB}`, mount]);
    await decompose({ checkpoint, store });
    expect(await verifyStore(store)).toMatchObject({ ok: true });
    rmSync(store, { recursive: true });
  });
});
