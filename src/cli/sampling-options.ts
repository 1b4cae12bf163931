import type { Command } from "commander";
import type { GenerateOptions } from "../engine/contract.js";
import { collect, decimal, integer } from "./arguments.js";

export interface SamplingChoices {
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  ignoreEos?: boolean;
}

/** The options that decide which tokens come, the same for `generate` and `chat`. */
export function addSamplingOptions(command: Command): Command {
  return command
    .option("-n, --max-new-tokens <count>", "tokens to generate at most", integer(1))
    .option("--temperature <value>", "0 takes the likeliest token each time (default: 0)", decimal(0))
    .option("--top-k <count>", "sample from the k likeliest tokens", integer(0))
    .option("--top-p <value>", "sample from the likeliest tokens that make up this probability", decimal(0, 1))
    .option("--min-p <value>", "drop tokens less likely than this share of the likeliest", decimal(0, 1))
    .option("--repetition-penalty <value>", "above 1 makes tokens already seen less likely", decimal(0))
    .option("--seed <number>", "same seed, same options: same tokens", integer(0))
    .option("--stop <text>", "end before this text; may be given several times", collect)
    .option("--ignore-eos", "go on after the end-of-sequence token");
}

export function generateOptions(choices: SamplingChoices, signal: AbortSignal): GenerateOptions {
  const { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop, ignoreEos } = choices;
  return { maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop, ignoreEos, signal };
}
