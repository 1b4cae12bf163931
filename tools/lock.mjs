/** A lock between processes of one machine, so that set-up may be started twice at once. */
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Runs `work` while no other process holds `file`. Locks of processes that died are taken over. */
export async function withLock(file, work) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  let announced = false;
  while (!tryLock(file)) {
    if (!announced) console.error(`layerstream: waiting for another set-up (${file}) ...`);
    announced = true;
    await sleep(200);
  }
  try {
    return await work();
  } finally {
    fs.rmSync(file, { force: true });
  }
}

function tryLock(file) {
  const own = `${file}.${process.pid}`;
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(own, String(process.pid));
  try {
    // A link appears together with its content, so that nobody reads an empty lock.
    fs.linkSync(own, file);
    return true;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
    takeAwayIfDead(file, own);
    return false;
  } finally {
    fs.rmSync(own, { force: true });
  }
}

function takeAwayIfDead(file, own) {
  const owner = readOwner(file);
  if (owner === undefined || isAlive(owner)) return;
  const taken = `${own}.stale`;
  try {
    fs.renameSync(file, taken);
    // Another waiter may have replaced the dead lock in between: give a living one back.
    if (readOwner(taken) !== owner) fs.linkSync(taken, file);
  } catch (error) {
    if (error.code !== "ENOENT" && error.code !== "EEXIST") throw error;
  } finally {
    fs.rmSync(taken, { force: true });
  }
}

function readOwner(file) {
  try {
    return Number(fs.readFileSync(file, "utf8"));
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}
