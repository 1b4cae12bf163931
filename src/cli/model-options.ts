import { type Command, Option } from "commander";
import type { LoadOptions, Model, Precision } from "../engine/contract.js";
import { PLACEMENTS, type Placement } from "../engine/placement.js";
import { KV_FORMATS } from "../models/kv-format.js";
import { bytes, integer } from "./arguments.js";
import { addCompressionOptions, type CompressionOptions } from "./compression-options.js";
import type { Interrupts } from "./interrupts.js";
import { addProfileOptions, type ProfileOptions } from "./profile-report.js";
import { createProgress } from "./progress.js";

export interface ModelOptions extends CompressionOptions, ProfileOptions {
  memory?: number;
  vram?: number;
  placement?: Placement;
  maxSeqLen?: number;
  kvDtype?: LoadOptions["kvDtype"];
  device?: string;
  threads?: number;
  precision?: Precision;
  cacheDir?: string;
  lora?: string[];
  hold: boolean;
}

function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}

/** The options that decide how a model is loaded, the same for every command that runs one. */
export function addModelOptions(command: Command): Command {
  command
    .option("--memory <size>", "hard budget for the whole process, for example 4GiB (default: what is free)", bytes)
    .option("--vram <size>", "hard budget of the device's own memory (default: what is free there)", bytes)
    .addOption(
      new Option("--placement <placement>", "what computes MLPs that the device does not hold").choices(PLACEMENTS),
    )
    .option("--max-seq-len <tokens>", "prompt and answer together", integer(1))
    .addOption(new Option("--kv-dtype <type>", "how keys and values are kept").choices(KV_FORMATS).default("f32"))
    .option("--device <device>", '"auto", "cpu", "cuda", "hip" or "opencl"; "opencl:1" is the second one')
    .option("--threads <count>", "CPU threads that compute", integer(1, 1024))
    .addOption(
      new Option("--precision <precision>", "fast: rounded activations where that is faster; exact: float32").choices([
        "fast",
        "exact",
      ]),
    )
    .option("--no-hold", "stream every layer in every pass, even what memory could hold")
    .option("--lora <directory>", "LoRA adapter (PEFT) to apply beside the weights; may be given again", collect)
    .option("--cache-dir <directory>", "where layer stores of checkpoints go");
  return addProfileOptions(addCompressionOptions(command, " when a checkpoint is decomposed on first use"));
}

/** Loads the model, with a progress bar on a terminal while a checkpoint is decomposed or held layers are read. */
export async function loadModel(model: string, options: ModelOptions, interrupts: Interrupts): Promise<Model> {
  const { AutoModel } = await import("../auto-model.js");
  const bars = { decompose: createProgress("Decomposing"), load: createProgress("Loading") };
  const loadOptions: LoadOptions = {
    compression: options.compression,
    embeddingCompression: options.embeddingCompression,
    headCompression: options.headCompression,
    requantize: options.requantize,
    memory: options.memory,
    vram: options.vram,
    placement: options.placement,
    maxSeqLen: options.maxSeqLen,
    kvDtype: options.kvDtype,
    device: options.device,
    threads: options.threads,
    precision: options.precision,
    cacheDir: options.cacheDir,
    hold: options.hold,
    lora: options.lora,
    profilingMode: options.profile === true || options.trace !== undefined,
    signal: interrupts.signal,
    onProgress: ({ phase, bytesDone, bytesTotal }) => {
      if (phase === "load") bars.decompose.stop();
      bars[phase].update(bytesDone, bytesTotal);
    },
  };
  try {
    return await AutoModel.fromPretrained(model, loadOptions);
  } finally {
    bars.decompose.stop();
    bars.load.stop();
  }
}
