import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { LayerstreamError } from "../../errors.js";

interface BuildOptions {
  force?: boolean;
  verbose?: boolean;
}

/** `layerstream build`: compiles the addon in the package's own folder, with tools/build.mjs. */
export function addBuildCommand(program: Command): void {
  program
    .command("build")
    .description("build the native addon of this installation (needs a C++20 compiler, make and python3)")
    .option("--force", "build although nothing changed")
    .option("--verbose", "show the compiler's output")
    .action(async (options: BuildOptions) => {
      const script = fileURLToPath(new URL("../../../tools/build.mjs", import.meta.url));
      const flags = ["--addon", ...(options.force ? ["--force"] : []), ...(options.verbose ? ["--verbose"] : [])];
      const status = await new Promise<number | null>((resolve, reject) => {
        spawn(process.execPath, [script, ...flags], { stdio: "inherit" })
          .on("error", reject)
          .on("exit", resolve);
      });
      if (status !== 0) {
        throw new LayerstreamError("NATIVE_ADDON_MISSING", "The native addon could not be built; the reason is above.");
      }
      console.log("The native addon is built.");
    });
}
