import { readFileSync } from "node:fs";
import { type FileHandle, open, readFile, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { errnoOf, ioError } from "../checkpoint/file-io.js";
import { isRecord } from "../checkpoint/strict-json.js";
import { LayerstreamError } from "../errors.js";

export const LOCK_FILE = "layerstream.lock";

/** A lock without readable content is taken for one that is being written, for this long. */
const WRITING_MS = 5000;

interface Owner {
  pid: number;
  host: string;
  /** Changes with every boot; empty where the system does not tell. */
  boot: string;
  /** When the process started, in the system's ticks; empty where the system does not tell. */
  started: string;
}

/**
 * Takes the exclusive right to write the store in `directory`; returns the function that gives it back. The lock of a
 * process that has ended, or of an earlier boot, is taken over.
 * @throws STORE_LOCKED naming the process that has it; NOT_WRITABLE
 */
export async function lockStore(directory: string): Promise<() => Promise<void>> {
  const file = join(directory, LOCK_FILE);
  const content = JSON.stringify(describeProcess(process.pid));
  for (let attempt = 0; attempt < 3; attempt++) {
    if (await createExclusively(file, content)) return () => rm(file, { force: true });
    await removeIfStale(directory, file);
  }
  throw locked(directory, file, "another process");
}

async function createExclusively(file: string, content: string): Promise<boolean> {
  let handle: FileHandle;
  try {
    handle = await open(file, "wx");
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return false;
    throw ioError(error, "write", file);
  }
  try {
    await handle.writeFile(content);
    return true;
  } catch (error) {
    await rm(file, { force: true });
    throw ioError(error, "write", file);
  } finally {
    await handle.close();
  }
}

/** Renames before it removes: of two processes that find the same stale lock, one gets it, and looks again. */
async function removeIfStale(directory: string, file: string): Promise<void> {
  await throwIfHeld(directory, file);
  const taken = `${file}.${process.pid}`;
  try {
    await rename(file, taken);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw ioError(error, "write", file);
  }
  try {
    await throwIfHeld(directory, taken);
  } catch (error) {
    await rename(taken, file);
    throw error;
  }
  await rm(taken, { force: true });
}

async function throwIfHeld(directory: string, file: string): Promise<void> {
  let owner: Owner | undefined;
  let age: number;
  try {
    owner = parseOwner(await readFile(file, "utf8"));
    age = Date.now() - (await stat(file)).mtimeMs;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw ioError(error, "read", file);
  }
  if (owner ? isRunning(owner) : age < WRITING_MS) {
    throw locked(directory, file, owner ? describe(owner) : "another process");
  }
}

function locked(directory: string, file: string, owner: string): LayerstreamError {
  return new LayerstreamError("STORE_LOCKED", `${directory} is being written by ${owner}.`, {
    file,
    remedy: `Wait until it has finished; if it no longer exists, delete ${file}.`,
  });
}

function describe(owner: Owner): string {
  return owner.host === hostname() ? `process ${owner.pid}` : `process ${owner.pid} on ${owner.host}`;
}

function parseOwner(text: string): Owner | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (!isRecord(value)) return undefined;
    const { pid, host, boot, started } = value;
    const valid = Number.isSafeInteger(pid) && (pid as number) > 0 && typeof host === "string";
    return valid ? { pid: pid as number, host, boot: String(boot), started: String(started) } : undefined;
  } catch {
    return undefined;
  }
}

/** On another host there is no way to know, so the answer is yes. */
function isRunning(owner: Owner): boolean {
  if (owner.host !== hostname()) return true;
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if (errnoOf(error) === "ESRCH") return false;
  }
  const now = describeProcess(owner.pid);
  return owner.boot === now.boot && owner.started === now.started;
}

function describeProcess(pid: number): Owner {
  const stats = readSystemFile(`/proc/${pid}/stat`);
  // The fields after the command, which may itself contain spaces and parentheses: state is the 3rd of all, start
  // time the 22nd. A zombie has ended.
  const fields = stats.slice(stats.lastIndexOf(")") + 2).split(" ");
  const started = fields[0] === "Z" ? "ended" : (fields[19] ?? "");
  return { pid, host: hostname(), boot: readSystemFile("/proc/sys/kernel/random/boot_id").trim(), started };
}

function readSystemFile(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
