/** One cell of tools/compare.mjs: layerstream. Its argument and what it prints are described there. */
import { randomTokenIds } from "../../dist/cli/benchmark.js";
import { AutoModel } from "../../dist/index.js";
import { tokenGaps } from "./timing.mjs";

const { model: path, memory, promptTokens, newTokens, prefillTokens } = JSON.parse(process.argv[2]);
const model = await AutoModel.fromPretrained(path, { memory, maxSeqLen: 1024 });
const tokens = (count, seed) => randomTokenIds(count, model.vocabSize, seed);
const generate = (prompt, maxNewTokens) => model.generate(prompt, { maxNewTokens, ignoreEos: true });

const tokenSeconds = await tokenGaps(generate(tokens(promptTokens, 1), newTokens));
const prefillSeconds = [];
for (let seed = 2; prefillTokens > 0 && seed < 4; seed++) {
  const start = performance.now();
  await generate(tokens(prefillTokens, seed), 1).tokens();
  prefillSeconds.push((performance.now() - start) / 1000);
}
const { heldBytes, bytesPerPass } = model.stats();
console.log(JSON.stringify({ tokenSeconds, prefillSeconds, heldBytes, streamedBytes: bytesPerPass }));
await model.dispose();
