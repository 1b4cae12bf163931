/**
 * One long prompt and some tokens after it, with yardsticks of the same process; prints one JSON object.
 *
 *   node tools/measure/long-prompt.mjs '{"store": ..., "load": {"memory": ...}, "promptTokens": 32768, "newTokens": 4}'
 */
import { randomTokenIds, runBenchmark } from "../../dist/cli/benchmark.js";
import { measureDiskRate } from "../../dist/engine/roofline.js";
import { AutoModel } from "../../dist/index.js";
import { native } from "../../dist/native/binding.js";

const { store, load, promptTokens, newTokens } = JSON.parse(process.argv[2]);
const yardstickSeconds = 1;
try {
  const diskRates = [await measureDiskRate(store, yardstickSeconds)];
  const model = await AutoModel.fromPretrained(store, load);
  const { threads } = model.stats();
  const peakRates = [native().measurePeakRate("f32", threads, yardstickSeconds)];
  const prompt = randomTokenIds(promptTokens, model.vocabSize, 1);
  const before = process.cpuUsage();
  const run = await runBenchmark(model, prompt, newTokens, new AbortController().signal);
  const { user, system } = process.cpuUsage(before);
  const profile = model.profile();
  const { runtimeBytes, maxSeqLen } = model.residency();
  await model.dispose();
  peakRates.push(native().measurePeakRate("f32", threads, yardstickSeconds));
  diskRates.push(await measureDiskRate(store, yardstickSeconds));
  console.log(
    JSON.stringify({
      run,
      profile,
      runtimeBytes,
      maxSeqLen,
      threads,
      processorSeconds: (user + system) / 1e6,
      diskRates,
      peakRates,
    }),
  );
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
