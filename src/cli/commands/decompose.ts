import type { Command } from "commander";
import type { DecomposeResult } from "../../decompose/decompose.js";
import { formatBytes, formatDuration } from "../../units.js";
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
    .argument("<checkpoint>", "directory with config.json and weights, or a GGUF file")
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
        const result = await decompose({
          checkpoint,
          store: options.output,
          compression: options.compression,
          embeddingCompression: options.embeddingCompression,
          headCompression: options.headCompression,
          requantize: options.requantize,
          deleteOriginal: options.deleteOriginal,
          workers: options.workers,
          signal: interrupts.signal,
          onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
        });
        progress.stop();
        const seconds = (performance.now() - started) / 1000;
        console.log(options.json ? jsonOf(result, seconds) : describe(result, seconds));
      } finally {
        progress.stop();
      }
    });
}

function jsonOf({ store, manifest, alreadyDone, deleted }: DecomposeResult, seconds: number): string {
  const { compression, files, dropped } = manifest;
  const bytes = sizeOf(files);
  const sourceBytes = sizeOf(manifest.source.files);
  return JSON.stringify({
    store,
    alreadyDone,
    compression,
    files: files.length,
    bytes,
    sourceBytes,
    dropped,
    deleted,
    seconds,
  });
}

function describe({ store, manifest, alreadyDone, deleted }: DecomposeResult, seconds: number): string {
  const { files, compression, dropped } = manifest;
  const what = `${files.length} files, ${formatBytes(sizeOf(files))}, compression ${compression}`;
  const lines = [
    alreadyDone ? `${store} was already complete: ${what}.` : `${store}: ${what}, in ${formatDuration(seconds)}.`,
  ];
  if (deleted.length > 0) lines.push(`Deleted from the checkpoint: ${deleted.join(", ")}.`);
  if (dropped.length > 0) lines.push(`Not stored, because the model does not use them: ${dropped.join(", ")}.`);
  return lines.join("\n");
}

function sizeOf(files: readonly { size: number }[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}
