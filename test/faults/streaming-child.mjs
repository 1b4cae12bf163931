// One scenario of streaming.test.ts in a process of its own; prints what it saw as one line of JSON.
// node streaming-child.mjs SCENARIO STORE
import fs from "node:fs";
import path from "node:path";
import { AutoModel, LayerstreamError } from "../../dist/index.js";
import { stallingGate } from "./stalling-worker.mjs";

const [, , scenario, store] = process.argv;
const prompt = [1, 77, 500, 1234, 9, 9, 1998, 3, 640, 5];
const newTokens = 4;

/** Nothing held: every pass streams every stage, through a ring smaller than a layer. */
const load = () =>
  AutoModel.fromPretrained(store, { memory: "512MiB", maxSeqLen: 256, hold: false, device: "cpu", threads: 2 });
const tokens = (model, options) =>
  model.generate(prompt, { maxNewTokens: newTokens, ignoreEos: true, ...options }).tokens();
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const print = (result) => fs.writeSync(1, `${JSON.stringify(result)}\n`);

function overwrite(file, content) {
  const descriptor = fs.openSync(file, "r+");
  fs.writeSync(descriptor, content);
  fs.closeSync(descriptor);
}

async function failure(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { code: error.code, name: error.name, message: error.message, own: error instanceof LayerstreamError };
  }
}

const scenarios = {
  async generate() {
    const model = await load();
    const result = { tokens: await tokens(model), stats: model.stats(), residency: model.residency() };
    await model.dispose();
    return result;
  },

  async truncated() {
    const model = await load();
    const before = await tokens(model);
    const file = path.join(store, "layer-003.safetensors");
    const content = fs.readFileSync(file);
    const failures = [];
    for (const length of [Math.floor(content.length / 2 / 4096) * 4096, Math.floor(content.length / 2) | 1, 0]) {
      fs.truncateSync(file, length);
      failures.push(await failure(tokens(model)), await failure(model.forward(prompt)));
    }
    overwrite(file, content);
    const changed = await failure(tokens(model));
    await model.dispose();
    const fresh = await load();
    const after = await tokens(fresh);
    fs.truncateSync(file, 4096);
    const last = await failure(tokens(fresh));
    await fresh.dispose();
    return { before, after, changed, failures: [...failures, last] };
  },

  // Another file of the same name leaves the open one as it was; other content of the same file does not.
  async replaced() {
    const model = await load();
    const before = await tokens(model);
    const file = path.join(store, "layer-004.safetensors");
    const content = fs.readFileSync(file);
    fs.renameSync(file, `${file}.old`);
    fs.writeFileSync(file, content.fill(7, content.length / 2));
    const after = await tokens(model);
    overwrite(`${file}.old`, content);
    const changed = await failure(tokens(model));
    await model.dispose();
    return { before, after, changed };
  },

  async workerDies() {
    const model = await load();
    const died = await failure(tokens(model));
    const after = await tokens(model);
    await model.dispose();
    return { died, after };
  },

  async abort() {
    const fresh = await tokens(await load());
    const model = await load();
    const aborted = [];
    for (const milliseconds of [0, 1, 5, 20, 50, 120]) {
      const signal = AbortSignal.timeout(milliseconds);
      // More than any machine computes in that time.
      aborted.push(await failure(tokens(model, { maxNewTokens: 240, signal })));
    }
    const controller = new AbortController();
    const generation = model.generate(prompt, { maxNewTokens: 100, ignoreEos: true, signal: controller.signal });
    const seen = [];
    const ended = await failure(
      (async () => {
        for await (const { token } of generation) {
          seen.push(token);
          if (seen.length === 3) controller.abort();
        }
      })(),
    );
    const after = await tokens(model);
    await model.dispose();
    return { fresh, after, seen, finishReason: generation.finishReason, aborted: [...aborted, ended] };
  },

  // The reader does not come back for a while: once without an abort, then with one, a change of memory and a dispose.
  async stalls() {
    const gate = stallingGate();
    const model = await load();
    const before = await tokens(model);

    await gate.close();
    const late = tokens(model);
    await gate.stalled();
    const cpuBefore = process.cpuUsage();
    await sleep(5000);
    const { user, system } = process.cpuUsage(cpuBefore);
    gate.open();
    const afterStall = await late;

    await gate.close();
    const controller = new AbortController();
    const aborted = failure(tokens(model, { signal: controller.signal }));
    await gate.stalled();
    const queued = failure(tokens(model, { signal: controller.signal }));
    const next = tokens(model);
    const memory = model.setMemory("400MiB");
    controller.abort();
    const outcomes = [await aborted, await queued];
    const abortedInStall = gate.isStalled();
    gate.open();
    await memory;
    const afterAbort = await next;

    await gate.close();
    const disposed = failure(tokens(model));
    await gate.stalled();
    const disposal = model.dispose();
    gate.open();
    await disposal;
    return {
      before,
      afterStall,
      cpuSeconds: (user + system) / 1e6,
      outcomes,
      abortedInStall,
      afterAbort,
      budget: model.residency().memoryBudgetBytes,
      disposed: await disposed,
    };
  },

  // Budgets between passes: all held, less than was held, less than works, and back.
  async budgets() {
    const model = await AutoModel.fromPretrained(store, { memory: "1GiB", maxSeqLen: 256, threads: 2 });
    const first = await tokens(model);
    const { heldBytes: heldAtFirst, minimumBytes } = model.residency();
    const residentAtFirst = process.memoryUsage.rss();
    await model.setMemory(minimumBytes + heldAtFirst / 4);
    const lowered = model.residency();
    const residentLowered = process.memoryUsage.rss();
    const second = await tokens(model);
    const refused = [];
    for (const budget of [minimumBytes - 2 ** 20, 1, "64MiB", 0, -1, Number.NaN, "many"]) {
      refused.push(await failure(model.setMemory(budget)));
    }
    const unchanged = model.residency();
    const third = await tokens(model);
    await model.setMemory("1GiB");
    const fourth = await tokens(model);
    const { heldBytes: heldAtLast } = model.residency();
    await model.dispose();
    const afterDispose = await failure(model.setMemory("1GiB"));
    return {
      heldAtFirst,
      residentAtFirst,
      lowered,
      residentLowered,
      refused,
      unchanged,
      heldAtLast,
      afterDispose,
      tokens: [first, second, third, fourth],
    };
  },

  async dispose() {
    const outcomes = [];
    for (const milliseconds of [0, 1, 10, 40]) {
      const model = await load();
      const running = failure(tokens(model, { maxNewTokens: 240 }));
      const queued = failure(tokens(model, { maxNewTokens: 240 }));
      await sleep(milliseconds);
      const disposals = [model.dispose(), model.dispose()];
      outcomes.push(await running, await queued);
      await Promise.all(disposals);
      outcomes.push(await failure(tokens(model)), await failure(model.forward(prompt)));
    }
    return { outcomes };
  },

  async cycles() {
    const count = () => ({
      residentBytes: process.memoryUsage.rss(),
      descriptors: fs.readdirSync("/proc/self/fd").length,
      threads: fs.readdirSync("/proc/self/task").length,
    });
    const cycle = async (index) => {
      const model = await load();
      if (index % 3 !== 0) await tokens(model, { maxNewTokens: 1 });
      await model.dispose();
      // What is left of JavaScript's garbage is not what is counted.
      if (index % 10 === 9) globalThis.gc();
    };
    // What V8 and the allocator keep for themselves is there after some.
    for (let index = 0; index < 40; index++) await cycle(index);
    const before = count();
    for (let index = 0; index < 200; index++) await cycle(index);
    // Threads that have ended leave the list a little later.
    let after = count();
    for (let wait = 0; wait < 100 && after.threads > before.threads; wait++) {
      await sleep(50);
      after = count();
    }
    return { before, after };
  },

  // The rest ends without dispose. What is left open must not keep the process.
  async endsAfterGenerate() {
    const model = await load();
    const result = await tokens(model);
    // Time to fill the ring with the next pass, and none at all.
    await sleep(300);
    return { tokens: result };
  },

  async endsRightAfterGenerate() {
    return { tokens: await tokens(await load()) };
  },

  async endsUnused() {
    await load();
    return {};
  },

  async endsAfterAbort() {
    const model = await load();
    const first = tokens(model, { maxNewTokens: 1 });
    const controller = new AbortController();
    const second = failure(tokens(model, { signal: controller.signal }));
    controller.abort();
    return { tokens: await first, second: await second };
  },

  async endsAfterBreak() {
    const model = await load();
    for await (const { token } of model.generate(prompt, { maxNewTokens: 100 })) return { token };
  },

  async exitsInPass() {
    const model = await load();
    tokens(model, { maxNewTokens: 240 }).catch(() => {});
    await sleep(60);
    print({});
    process.exit(7);
  },

  async throwsInPass() {
    const model = await load();
    tokens(model, { maxNewTokens: 240 }).catch(() => {});
    setTimeout(() => {
      throw new Error("a bug elsewhere");
    }, 60);
    return {};
  },
};

print(await scenarios[scenario]());
