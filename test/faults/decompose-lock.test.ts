import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { setImmediate } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { MANIFEST_FILE } from "../../dist/checkpoint/manifest.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { JOURNAL_FILE } from "../../dist/decompose/journal.js";
import { lockStore } from "../../dist/decompose/lock.js";
import { examineTarget } from "../../dist/decompose/target.js";
import { verifyStore } from "../../dist/decompose/verify.js";
import { writeCheckpoint } from "../helpers/checkpoint.js";
import { startDecompose } from "../helpers/child.js";
import { temporaryDirectory } from "../helpers/files.js";

const holdLock = path.join(import.meta.dirname, "../helpers/hold-lock.mjs");

function workplace(): { checkpoint: string; store: string } {
  const directory = temporaryDirectory();
  const [checkpoint, store] = [path.join(directory, "checkpoint"), path.join(directory, "store")];
  writeCheckpoint(checkpoint);
  mkdirSync(store);
  return { checkpoint, store };
}

describe("the lock of a store", () => {
  it("keeps a second process out, names the first, and ends with it", async () => {
    const { checkpoint, store } = workplace();
    const holder = spawn(process.execPath, [holdLock, store], { stdio: ["pipe", "pipe", "inherit"] });
    onTestFinished(() => void holder.kill("SIGKILL"));
    await once(holder.stdout, "data");
    await expect(decompose({ checkpoint, store })).rejects.toMatchObject({
      code: "STORE_LOCKED",
      message: expect.stringContaining(`process ${holder.pid}`),
    });
    expect(readdirSync(store)).toEqual(["layerstream.lock"]);

    holder.kill("SIGKILL");
    await once(holder, "close");
    await decompose({ checkpoint, store });
    expect(readdirSync(store).filter((name) => name.includes("lock"))).toEqual([]);
  });

  it("lets one of several at once through, and the others succeed or are refused", async () => {
    const { checkpoint, store } = workplace();
    const children = [1, 2, 3].map(() => startDecompose({ checkpoint, store }).result);
    const results = await Promise.all(children);
    const codes = results.map(({ code }) => code ?? "done");
    expect(codes).toContain("done");
    expect(codes.filter((code) => code !== "done" && code !== "STORE_LOCKED")).toEqual([]);
    expect(await verifyStore(store)).toMatchObject({ ok: true });
  });

  it("is no matter for a look at a store that another process begins and finishes meanwhile", async () => {
    const { checkpoint, store: finished } = workplace();
    await decompose({ checkpoint, store: finished });
    const { manifest } = await openLayerStore(finished);
    const plan = { identity: manifest.source.identity, settings: manifest, hash: "" };
    const files = readdirSync(finished).filter((name) => name !== MANIFEST_FILE);
    const parent = temporaryDirectory();
    for (let round = 0; round < 240; round++) {
      const store = path.join(parent, `${round}`);
      mkdirSync(store);
      const put = (name: string, content: string | Buffer): void => {
        writeFileSync(path.join(store, `${name}.tmp`), content);
        renameSync(path.join(store, `${name}.tmp`), path.join(store, name));
      };
      const copy = (name: string): void => put(name, readFileSync(path.join(finished, name)));
      const steps = [
        () => put(JOURNAL_FILE, JSON.stringify({ plan: plan.hash, finished: {} })),
        () => files.forEach(copy),
        () => copy(MANIFEST_FILE),
        () => rmSync(path.join(store, JOURNAL_FILE)),
      ];
      // Some have been done when the look begins, others follow while it lasts.
      for (const step of steps.splice(0, round % 4)) step();
      const look = examineTarget(store, plan);
      for (const step of steps) {
        for (let wait = round % 30; wait > 0; wait--) await setImmediate();
        step();
      }
      // What it finds depends on when; that the other process writes a store does not.
      expect(["empty", "unfinished", "finished"]).toContain((await look).state);
      expect(await examineTarget(store, plan)).toMatchObject({ state: "finished" });
    }
  });

  it("is held within one process too", async () => {
    const { store } = workplace();
    const unlock = await lockStore(store);
    await expect(lockStore(store)).rejects.toMatchObject({ code: "STORE_LOCKED" });
    await unlock();
    await (await lockStore(store))();
  });

  it.each([
    ["a process that has ended", { pid: 2 ** 22 + 1, host: hostname(), boot: "", started: "" }, true],
    ["an earlier boot", { pid: process.pid, host: hostname(), boot: "earlier", started: "1" }, true],
    ["a process on another host", { pid: process.pid, host: "elsewhere.example", boot: "", started: "" }, false],
  ])("of %s", async (_, owner, isStale) => {
    const { store } = workplace();
    writeFileSync(path.join(store, "layerstream.lock"), JSON.stringify(owner));
    if (isStale) await (await lockStore(store))();
    else
      await expect(lockStore(store)).rejects.toMatchObject({
        code: "STORE_LOCKED",
        message: expect.stringContaining("elsewhere"),
      });
    expect(readdirSync(store)).toHaveLength(isStale ? 0 : 1);
  });

  it("that is still being written counts as held", async () => {
    const { store } = workplace();
    writeFileSync(path.join(store, "layerstream.lock"), "");
    await expect(lockStore(store)).rejects.toMatchObject({ code: "STORE_LOCKED" });
  });
});
