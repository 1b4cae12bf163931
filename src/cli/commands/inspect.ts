import type { Command } from "commander";

/** `layerstream inspect`: describes a checkpoint or a layer store without reading its weights. */
export function addInspectCommand(program: Command): void {
  program
    .command("inspect")
    .description("describe a checkpoint or a layer store without reading its weights")
    .argument("<model>", "checkpoint, GGUF file or layer store")
    .option("--json", "print one JSON object")
    .action(async (model: string, options: { json?: boolean }) => {
      const { inspect } = await import("../../models/inspect.js");
      const { renderInspection } = await import("../../models/inspection-text.js");
      const inspection = await inspect(model);
      process.stdout.write(`${options.json ? JSON.stringify(inspection) : renderInspection(inspection)}\n`);
    });
}
