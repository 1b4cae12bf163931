import { type Command, Option } from "commander";
import type { LoadOptions } from "../../engine/contract.js";
import { PLACEMENTS } from "../../engine/placement.js";
import { LayerstreamError } from "../../errors.js";
import { KV_FORMATS } from "../../models/kv-format.js";
import { bytes, integer } from "../arguments.js";

interface Options extends Pick<LoadOptions, "memory" | "vram" | "device" | "placement" | "maxSeqLen" | "kvDtype"> {
  json?: boolean;
}

/** `layerstream inspect`: describes a checkpoint or a layer store without reading its weights. */
export function addInspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("describe a checkpoint or a layer store without reading its weights")
    .argument("<model>", "checkpoint, GGUF file or layer store")
    .option("--memory <size>", "where each stage of a layer store would live in such a budget, for example 4GiB", bytes)
    .option("--vram <size>", "and in such a budget of a device's own memory", bytes)
    .option("--device <device>", 'as for generate, for example "cuda" or "opencl"')
    .addOption(
      new Option("--placement <placement>", "what computes MLPs that the device does not hold").choices(PLACEMENTS),
    )
    .option("--max-seq-len <tokens>", "with a budget: prompt and answer together", integer(1))
    .addOption(new Option("--kv-dtype <type>", "with a budget: how keys and values are kept").choices(KV_FORMATS))
    .option("--json", "print one JSON object")
    .action(async (model: string, { json, ...load }: Options) => {
      const budget = load.memory ?? load.vram;
      if (budget === undefined && (load.maxSeqLen ?? load.kvDtype ?? load.device) !== undefined) {
        throw new LayerstreamError(
          "INVALID_ARGUMENT",
          "--device, --max-seq-len and --kv-dtype say nothing without --memory or --vram.",
          { remedy: "Give one of these too, or leave them out." },
        );
      }
      const { inspect } = await import("../../models/inspect.js");
      const { renderInspection } = await import("../../models/inspection-text.js");
      const inspection = await inspect(model);
      if (budget === undefined) {
        process.stdout.write(`${json ? JSON.stringify(inspection) : renderInspection(inspection)}\n`);
        return;
      }
      if (inspection.kind !== "store") {
        throw new LayerstreamError(
          "INVALID_ARGUMENT",
          `${model} is not a layer store; --memory and --vram need its bytes as stored.`,
          {
            remedy: "Run layerstream decompose first, or leave them out.",
          },
        );
      }
      const { previewResidency, renderPreview } = await import("../residency-preview.js");
      const preview = await previewResidency(inspection.path, load);
      process.stdout.write(
        `${json ? JSON.stringify({ ...inspection, ...preview }) : `${renderInspection(inspection)}\n\n${renderPreview(preview)}`}\n`,
      );
    });
}
