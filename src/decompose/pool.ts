import { availableParallelism } from "node:os";
import { Piscina } from "piscina";
import { native } from "../native/binding.js";
import type { Encodings } from "./encoding.js";
import { type CheckTask, Control, errorOf, type SurveyTask, type TaskResult, type WriteTask } from "./task.js";

const MAX_DEFAULT_WORKERS = 8;
/** Less work than this is done before another thread has started. */
const MIN_THREAD_BYTES = 16 * 1024 * 1024;
const PROGRESS_INTERVAL_MS = 100;

export interface RunOptions {
  /** Threads; default: two a core, since they wait for the disk half of the time, and at most 8. */
  workers?: number;
  /** Called with the bytes done so far, a few times a second and after each task. */
  onBytes?: (bytes: number) => void;
  signal?: AbortSignal;
}

interface TaskTypes {
  writeFile: { task: WriteTask; value: string };
  surveyTensors: { task: SurveyTask; value: Encodings };
  checkFile: { task: CheckTask; value: number[] };
}

type TaskName = keyof TaskTypes;

/**
 * Runs the tasks, of `bytes` in all, on a pool of worker threads, which take them in order; `onValue` gets the results, one at a
 * time, in the order of completion.
 * The first failure stops the rest, and is thrown when all have stopped.
 * @throws ABORTED when `signal` fires; what the tasks and `onValue` throw
 */
export async function runTasks<N extends TaskName, T extends Omit<TaskTypes[N]["task"], "control">>(
  name: N,
  tasks: readonly T[],
  bytes: number,
  onValue: (task: T, value: TaskTypes[N]["value"]) => Promise<void>,
  options: RunOptions,
): Promise<void> {
  // Errors of threads that cannot start would lose their code: let a missing addon fail here.
  native();
  const control = new Control();
  const stop = () => control.stop();
  if (options.signal?.aborted) stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  control.throwIfStopped();
  const useful = Math.min(tasks.length, Math.ceil(bytes / MIN_THREAD_BYTES));
  const threads = Math.max(1, Math.min(options.workers ?? defaultWorkers(), useful));
  const pool = new Piscina({
    filename: new URL("./worker.js", import.meta.url).href,
    minThreads: 1,
    maxThreads: threads,
  });
  const report = () => options.onBytes?.(control.bytesDone);
  let failure: unknown;
  const fail = (error: unknown) => {
    failure ??= error;
    stop();
  };
  const timer = setInterval(() => {
    try {
      report();
    } catch (error) {
      fail(error);
    }
  }, PROGRESS_INTERVAL_MS);
  let previous: Promise<void> = Promise.resolve();
  const run = async (task: T) => {
    try {
      control.throwIfStopped();
      const result = (await pool.run({ ...task, control: control.buffer }, { name })) as TaskResult<
        TaskTypes[N]["value"]
      >;
      if (!result.ok) throw errorOf(result.failure);
      const { value } = result;
      // The thread goes on with another task meanwhile.
      previous = previous.then(() => onValue(task, value)).then(report);
      previous.catch(fail);
    } catch (error) {
      fail(error);
    }
  };
  // Piscina's own queue does not keep the order.
  const left = [...tasks];
  const runInTurn = async () => {
    for (let task = left.shift(); task !== undefined; task = left.shift()) await run(task);
  };
  try {
    await Promise.all(Array.from({ length: threads }, runInTurn));
    await previous.catch(fail);
    if (failure !== undefined) throw failure;
    control.throwIfStopped();
  } finally {
    clearInterval(timer);
    options.signal?.removeEventListener("abort", stop);
    await pool.destroy();
  }
}

function defaultWorkers(): number {
  return Math.min(2 * availableParallelism(), MAX_DEFAULT_WORKERS);
}
