#!/usr/bin/env node
import { isAbort, reportFailure } from "./failure.js";
import { Interrupts } from "./interrupts.js";
import { createProgram } from "./program.js";

// The reader of a pipe may leave early (`layerstream generate ... | head`): that ends the program, quietly.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}

const interrupts = new Interrupts();
try {
  const program = createProgram(interrupts);
  if (process.argv.length > 2) await program.parseAsync();
  else program.outputHelp();
  process.exitCode = interrupts.exitCode ?? 0;
} catch (error) {
  process.exitCode = interrupts.exitCode !== undefined && isAbort(error) ? interrupts.exitCode : reportFailure(error);
}
