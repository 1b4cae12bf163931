import type { Command } from "commander";
import { LayerstreamError } from "../../errors.js";
import { formatBytes } from "../../units.js";
import type { Interrupts } from "../interrupts.js";
import { createProgress } from "../progress.js";

/** `layerstream verify`: checks every byte of a layer store; exit code 1 when something is damaged. */
export function addVerifyCommand(program: Command, interrupts: Interrupts): void {
  program
    .command("verify")
    .description("check every byte of a layer store against its checksums")
    .argument("<store>", "layer store")
    .option("--json", "print one JSON object")
    .action(async (store: string, options: { json?: boolean }) => {
      const { verifyStore } = await import("../../decompose/verify.js");
      const progress = createProgress("Verifying");
      try {
        const report = await verifyStore(store, {
          signal: interrupts.signal,
          onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
        });
        progress.stop();
        if (options.json) console.log(JSON.stringify(report));
        else for (const problem of report.problems) console.log(`${problem.file}: ${problem.message}`);
        if (!report.ok) {
          const count = report.problems.length === 1 ? "1 problem" : `${report.problems.length} problems`;
          throw new LayerstreamError("STORE_CORRUPT", `${store} has ${count}.`, {
            remedy: "Delete the store and decompose the checkpoint again.",
          });
        }
        if (!options.json) console.log(`${store} is undamaged: ${formatBytes(report.bytes)} checked.`);
      } finally {
        progress.stop();
      }
    });
}
