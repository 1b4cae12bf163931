import type { Command } from "commander";
import { formatBytes, formatDuration, formatRate } from "../../units.js";
import { integer } from "../arguments.js";
import { addCompressionOptions, type CompressionOptions } from "../compression-options.js";
import type { Interrupts } from "../interrupts.js";
import { createProgress } from "../progress.js";

interface Options extends CompressionOptions {
  output?: string;
  deleteOriginal?: boolean;
  workers?: number;
  json?: boolean;
}

/** `layerstream decompose`: writes the layer store of a checkpoint. */
export function addDecomposeCommand(program: Command, interrupts: Interrupts): void {
  const command = program
    .command("decompose")
    .description("write the layer store of a checkpoint; run again after an interruption, it resumes")
    .argument("<checkpoint>", "directory with config.json and safetensors")
    .option("-o, --output <directory>", "the layer store (default: one in the cache, named after the checkpoint)");
  addCompressionOptions(command, ' (default: "none")')
    .option("--delete-original", "delete the checkpoint's weights once the store is verified")
    .option("--workers <count>", "threads that quantize and copy", integer(1, 1024))
    .option("--json", "print one JSON object")
    .action(async (checkpoint: string, options: Options) => {
      const { decompose } = await import("../../decompose/decompose.js");
      const progress = createProgress("Decomposing");
      const started = performance.now();
      try {
        const { store, manifest, alreadyDone, deleted } = await decompose({
          checkpoint,
          store: options.output,
          compression: options.compression,
          embeddingCompression: options.embeddingCompression,
          headCompression: options.headCompression,
          deleteOriginal: options.deleteOriginal,
          workers: options.workers,
          signal: interrupts.signal,
          onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
        });
        progress.stop();
        const seconds = (performance.now() - started) / 1000;
        const size = manifest.files.reduce((sum, file) => sum + file.size, 0);
        const sourceBytes = manifest.source.files.reduce((sum, file) => sum + file.size, 0);
        const { compression, dropped } = manifest;
        if (options.json) {
          const files = manifest.files.length;
          const result = {
            store,
            alreadyDone,
            compression,
            files,
            bytes: size,
            sourceBytes,
            dropped,
            deleted,
            seconds,
          };
          console.log(JSON.stringify(result));
          return;
        }
        const described = `${manifest.files.length} files, ${formatBytes(size)}, compression ${compression}`;
        if (alreadyDone) console.log(`${store} was already complete (${described}).`);
        else
          console.log(
            `${store}: ${described}, in ${formatDuration(seconds)} (${formatRate(sourceBytes / seconds)} read).`,
          );
        if (deleted.length > 0) console.log(`Deleted from the checkpoint: ${deleted.join(", ")}.`);
        if (dropped.length > 0) console.log(`Not stored, because the model does not use them: ${dropped.join(", ")}.`);
      } finally {
        progress.stop();
      }
    });
}
