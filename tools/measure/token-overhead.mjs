/**
 * Generates twice from a store that is held, the first time just after it was loaded; prints one JSON object: the time of a
 * token in and between passes, in microseconds.
 *
 *   node tools/measure/token-overhead.mjs '{"store": ..., "memory": ..., "firstTokens": 60, "tokens": 500, "options": {...}}'
 */
import { randomTokenIds } from "../../dist/cli/benchmark.js";
import { AutoModel } from "../../dist/index.js";

const { store, memory, firstTokens, tokens, options } = JSON.parse(process.argv[2]);
const model = await AutoModel.fromPretrained(store, { memory, profilingMode: true });
const prompt = randomTokenIds(16, model.vocabSize, 1);

async function measure(count) {
  const before = model.profile().decode;
  const generation = model.generate(prompt, { maxNewTokens: count + 1, ignoreEos: true, seed: 1, ...options });
  for await (const _ of generation);
  const after = model.profile().decode;
  const passes = after.passes - before.passes;
  const each = (seconds) => ((after[seconds] - before[seconds]) / passes) * 1e6;
  const inPass = each("passSeconds");
  return { inPass, between: each("seconds") - inPass };
}

const first = await measure(firstTokens);
const later = await measure(tokens);
const { bytesStreamed, weightBytes } = model.stats();
await model.dispose();
if (bytesStreamed > weightBytes) throw new Error(`${store} is not held: give it more memory.`);
console.log(JSON.stringify({ first, later }));
