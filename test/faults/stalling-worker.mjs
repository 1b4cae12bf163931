// Preloaded: while the gate is closed, workers that are to read a tape wait. State is shared with the main thread.
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";
import { native } from "../../dist/native/binding.js";

const GATE = "layerstream test: gate";
const CLOSED = 0;
const INSIDE = 1;
const STALLED = 2;

if (isMainThread) {
  setEnvironmentData(GATE, new SharedArrayBuffer(12));
} else {
  const state = new Int32Array(getEnvironmentData(GATE));
  const { readTape } = native();
  native().readTape = (model) => {
    Atomics.store(state, INSIDE, 1);
    Atomics.store(state, STALLED, Atomics.load(state, CLOSED));
    Atomics.wait(state, CLOSED, 1);
    Atomics.store(state, STALLED, 0);
    try {
      return readTape(model);
    } finally {
      Atomics.store(state, INSIDE, 0);
    }
  };
}

/** For the main thread. */
export function stallingGate() {
  const state = new Int32Array(getEnvironmentData(GATE));
  const until = async (index, value) => {
    while (Atomics.load(state, index) !== value) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  return {
    isStalled: () => Atomics.load(state, STALLED) === 1,
    stalled: () => until(STALLED, 1),
    /** Whoever reads from now on waits. */
    async close() {
      await until(INSIDE, 0);
      Atomics.store(state, CLOSED, 1);
    },
    open() {
      Atomics.store(state, CLOSED, 0);
      Atomics.notify(state, CLOSED);
    },
  };
}
