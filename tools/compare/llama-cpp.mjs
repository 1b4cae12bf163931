/** One cell of tools/compare.mjs: llama.cpp through node-llama-cpp, on the CPU, with mmap. */
import { randomTokenIds } from "../../dist/cli/benchmark.js";
import { tokenGaps } from "./timing.mjs";

const {
  library,
  model: modelPath,
  vocab,
  threads,
  promptTokens,
  newTokens,
  prefillTokens,
} = JSON.parse(process.argv[2]);
const { getLlama } = await import(library);
const llama = await getLlama({
  gpu: false,
  build: "never",
  maxThreads: threads,
  logLevel: "error",
  progressLogs: false,
});
const model = await llama.loadModel({ modelPath, gpuLayers: 0, useMmap: true, ignoreMemorySafetyChecks: true });
const context = await model.createContext({
  contextSize: 1024,
  batchSize: 512,
  threads,
  sequences: 1,
  ignoreMemorySafetyChecks: true,
});
const sequence = context.getSequence();
const tokens = (count, seed) => randomTokenIds(count, vocab - 3, seed).map((id) => id + 3);

async function* take(generated, count) {
  let taken = 0;
  for await (const token of generated) {
    yield token;
    if (++taken === count) return;
  }
}

const tokenSeconds = await tokenGaps(take(sequence.evaluate(tokens(promptTokens, 1), { temperature: 0 }), newTokens));
const prefillSeconds = [];
for (let seed = 2; prefillTokens > 0 && seed < 4; seed++) {
  await sequence.clearHistory();
  const start = performance.now();
  for await (const _ of take(sequence.evaluate(tokens(prefillTokens, seed), { temperature: 0 }), 1)) break;
  prefillSeconds.push((performance.now() - start) / 1000);
}
console.log(JSON.stringify({ tokenSeconds, prefillSeconds }));
// Disposing of a model under a memory cap can take as long as a pass.
process.exit(0);
