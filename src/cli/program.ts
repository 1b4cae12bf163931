import { readFileSync } from "node:fs";
import { Command } from "commander";
import { addBenchCommand } from "./commands/bench.js";
import { addBuildCommand } from "./commands/build.js";
import { addChatCommand } from "./commands/chat.js";
import { addDecomposeCommand } from "./commands/decompose.js";
import { addDoctorCommand } from "./commands/doctor.js";
import { addGenerateCommand } from "./commands/generate.js";
import { addInspectCommand } from "./commands/inspect.js";
import { addVerifyCommand } from "./commands/verify.js";
import { printFailure } from "./failure.js";
import type { Interrupts } from "./interrupts.js";

const addCommands = [
  addGenerateCommand,
  addChatCommand,
  addDecomposeCommand,
  addVerifyCommand,
  addInspectCommand,
  addBenchCommand,
  addDoctorCommand,
  addBuildCommand,
];

/** The command line as a commander program. Usage errors are printed and thrown as CommanderError. */
export function createProgram(interrupts: Interrupts): Command {
  const program = new Command("layerstream")
    .description("Runs large language models that do not fit in memory, by streaming their layers from disk.")
    .version(packageVersion(), "-V, --version")
    .exitOverride()
    .configureOutput({
      outputError: (text) => printFailure("INVALID_ARGUMENT", withRemedy(text.replace(/^error: /, ""))),
    })
    .addHelpText(
      "after",
      `
Examples:
  layerstream generate ./my-checkpoint -p "Once upon a time" --memory 4GiB
  layerstream decompose ./my-checkpoint -o ./my-store --compression 4bit
  layerstream chat ./my-store`,
    );
  for (const add of addCommands) add(program, interrupts);
  return program;
}

/** Commander names the nearest option or command when one is near. */
function withRemedy(message: string): string {
  return /Did you mean|argument .* is invalid/.test(message)
    ? message
    : `${message.trim().replace(/\.$/, "")}. See layerstream --help.`;
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
