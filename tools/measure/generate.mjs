/**
 * Loads a model under a budget and generates greedily after a random prompt; prints one JSON object.
 *
 *   node tools/measure/generate.mjs '{"path": ..., "load": {"memory": ...}, "promptTokens": 16, "newTokens": 4}'
 */
import { randomTokenIds } from "../../dist/cli/benchmark.js";
import { AutoModel } from "../../dist/index.js";

const { path, load, promptTokens, newTokens } = JSON.parse(process.argv[2]);
try {
  const model = await AutoModel.fromPretrained(path, load);
  const prompt = randomTokenIds(promptTokens, model.vocabSize, 1);
  const tokens = await model.generate(prompt, { maxNewTokens: newTokens, ignoreEos: true }).tokens();
  const { stages, ...residency } = model.residency();
  console.log(JSON.stringify({ tokens, stats: model.stats(), residency }));
  await model.dispose();
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
