// Runs steps on one model in a process of its own and prints, as JSON, what came of each.
// node elastic-child.mjs '{"path": ..., "load": {...}, "steps": [{"promptTokens": 20, "newTokens": 4}, {"memory": 1e9}, {"forward": 8}]}'
import { createHash } from "node:crypto";
import { randomTokenIds } from "../../dist/cli/benchmark.js";
import { AutoModel } from "../../dist/index.js";

const { path, load, steps } = JSON.parse(process.argv[2]);
const model = await AutoModel.fromPretrained(path, load);
const prompt = (count) => randomTokenIds(count, model.vocabSize, 7);

async function take({ memory, forward, promptTokens, newTokens }) {
  if (memory !== undefined) return model.setMemory(memory);
  if (forward !== undefined) {
    const { logits } = await model.forward(prompt(forward));
    return { hash: createHash("sha256").update(new Uint8Array(logits.buffer)).digest("hex") };
  }
  const options = { maxNewTokens: newTokens, ignoreEos: true };
  return { tokens: await model.generate(prompt(promptTokens), options).tokens() };
}

const outcomes = [];
for (const step of steps) {
  const before = model.stats();
  const outcome = await take(step).catch(({ code, message }) => ({ code, message }));
  const { heldBytes, kvBytes, activationBytes, passes, memoryBudgetBytes } = model.stats();
  const figures = { heldBytes, kvBytes, activationBytes, passes: passes - before.passes, memoryBudgetBytes };
  outcomes.push({ ...outcome, ...figures, residentBytes: process.memoryUsage.rss() });
}
const { minimumBytes, maxSeqLen } = model.residency();
const { weightBytes } = model.stats();
await model.dispose();
const peakBytes = process.resourceUsage().maxRSS * 1024;
console.log(JSON.stringify({ outcomes, minimumBytes, maxSeqLen, weightBytes, peakBytes }));
