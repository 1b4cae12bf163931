// Loads a model under a budget in a process of its own and prints what came out as JSON.
// node engine-child.mjs '{"path": ..., "load": {...}, "prompt": [...], "newTokens": 4, "trace": FILE}'
import { createHash } from "node:crypto";
import { AutoModel } from "../../dist/index.js";

const { path, load, prompt, newTokens, trace } = JSON.parse(process.argv[2]);
try {
  const model = await AutoModel.fromPretrained(path, load);
  const { logits } = await model.forward(prompt);
  const tokens = await model.generate(prompt, { maxNewTokens: newTokens, ignoreEos: true }).tokens();
  const hash = createHash("sha256").update(new Uint8Array(logits.buffer)).digest("hex");
  const result = { hash, tokens, stats: model.stats(), residency: model.residency() };
  if (trace) await model.writeTrace(trace);
  await model.dispose();
  console.log(JSON.stringify({ ...result, peakBytes: process.resourceUsage().maxRSS * 1024 }));
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
