import type { Command } from "commander";
import { LayerstreamError } from "../../errors.js";
import { examine } from "../doctor.js";
import { formatTable } from "../table.js";

/** `layerstream doctor`: says what works on this machine; exit code 1 when something does not. */
export function addDoctorCommand(program: Command): void {
  program
    .command("doctor")
    .description("say what works on this machine, and what to do about what does not")
    .option("--directory <directory>", "where your models lie", ".")
    .option("--json", "print one JSON object")
    .action(async (options: { directory: string; json?: boolean }) => {
      const checks = await examine(options.directory);
      const ok = checks.every((check) => check.ok);
      const rows = checks.map((check) => [`${check.ok ? "ok  " : "FAIL"}  ${check.name}`, check.detail] as const);
      console.log(options.json ? JSON.stringify({ ok, checks }) : formatTable(rows));
      if (!ok) {
        const names = checks.flatMap((check) => (check.ok ? [] : [check.name]));
        throw new LayerstreamError("DEVICE_UNAVAILABLE", `Not everything works here: ${names.join(", ")}.`, {
          remedy: "See what to do about each above.",
        });
      }
    });
}
