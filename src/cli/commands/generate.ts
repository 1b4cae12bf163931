import { text as readStream } from "node:stream/consumers";
import type { Command } from "commander";
import type { Generation, Model, Prompt } from "../../engine/contract.js";
import { LayerstreamError } from "../../errors.js";
import { formatRate } from "../../units.js";
import { tokenIds } from "../arguments.js";
import type { Interrupts } from "../interrupts.js";
import { addModelOptions, loadModel, type ModelOptions } from "../model-options.js";
import { profileField, reportProfile } from "../profile-report.js";
import { addSamplingOptions, generateOptions, type SamplingChoices } from "../sampling-options.js";
import { formatStats } from "../stats-table.js";

const RAW_READ_SECONDS = 0.5;

interface Options extends ModelOptions, SamplingChoices {
  prompt?: string;
  tokens?: number[];
  stats?: boolean;
  json?: boolean;
}

const jsonHelp = `
With --json nothing is streamed; at the end one object is printed:
  { "text", "tokens", "promptTokens", "finishReason": "stop" | "eos" | "length", "stats" }, and "profile" with --profile.
Given --tokens no tokenizer is needed, and the ids of the new tokens are printed instead of text.`;

/** `layerstream generate`: continues a prompt, streaming to stdout. */
export function addGenerateCommand(program: Command, interrupts: Interrupts): void {
  const command = program
    .command("generate")
    .description("continue a prompt; the text is streamed to stdout")
    .argument("<model>", "checkpoint, GGUF file or layer store")
    .option("-p, --prompt <text>", "the prompt, or - to read it from stdin")
    .option("--tokens <ids>", "the prompt as token ids, for example 1,2,3", tokenIds);
  addModelOptions(addSamplingOptions(command))
    .option("--stats", "print what it cost, on stderr")
    .option("--json", "print one JSON object at the end instead")
    .addHelpText("after", jsonHelp)
    .action(async (modelPath: string, options: Options) => {
      const prompt = await promptOf(options);
      const model = await loadModel(modelPath, options, interrupts);
      try {
        const generation = model.generate(prompt, generateOptions(options, interrupts.signal));
        await (options.json
          ? printJson(generation, model, options)
          : streamText(generation, typeof prompt === "string"));
        if (options.stats) process.stderr.write(`\n${formatStats(model.stats(), await rawDiskRate(model))}\n`);
        await reportProfile(model, options);
      } finally {
        await model.dispose();
      }
    });
}

async function promptOf(options: Options): Promise<Prompt> {
  if ((options.prompt === undefined) === (options.tokens === undefined)) {
    throw new LayerstreamError("INVALID_ARGUMENT", "The prompt is missing or given twice.", {
      remedy: "Give one of --prompt TEXT, --prompt - (for stdin) and --tokens 1,2,3.",
    });
  }
  if (options.tokens) return options.tokens;
  return options.prompt === "-" ? readStream(process.stdin) : (options.prompt ?? "");
}

/** What the disk gives by itself, to compare with; nothing for a model that is held. */
async function rawDiskRate(model: Model): Promise<[string, string][]> {
  if (model.residency().streamedBytes === 0) return [];
  const { measureDiskRate } = await import("../../engine/roofline.js");
  return [["raw disk rate", formatRate(await measureDiskRate(model.store, RAW_READ_SECONDS))]];
}

async function streamText(generation: Generation, asText: boolean): Promise<void> {
  for await (const { text, token } of generation) process.stdout.write(asText ? text : `${token} `);
  process.stdout.write("\n");
}

async function printJson(generation: Generation, model: Model, options: Options): Promise<void> {
  let text = "";
  const tokens: number[] = [];
  for await (const piece of generation) {
    text += piece.text;
    tokens.push(piece.token);
  }
  const { promptTokens, finishReason } = generation;
  const result = { text, tokens, promptTokens, finishReason, stats: model.stats(), ...profileField(model, options) };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
