/** Command lines of the tools: the comment at a tool's head is its help; a mistake is one line and exit code 2. */
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

const program = process.argv[1];

/** Ends the program: it cannot do what its command line says, and `reason` is why. */
export function refuse(reason) {
  console.error(`${path.basename(program, ".mjs")}: ${reason} (--help explains)`);
  process.exit(2);
}

function helpText() {
  const [, comment = ""] = /\/\*\*\n(.*?)\n? \*\//s.exec(fs.readFileSync(program, "utf8")) ?? [];
  return comment.replaceAll(/^ \* ?/gm, "");
}

/** Errors with a code are of files and the like: one line for them, a stack for defects of the tool. */
function fail(error) {
  console.error(typeof error?.code === "string" ? `${path.basename(program, ".mjs")}: ${error.message}` : error);
  process.exit(1);
}

/**
 * What `parseArgs` of node:util makes of the command line. `--help` prints the help and ends the program. From then on an
 * error that nobody catches ends it with exit code 1.
 */
export function readOptions(config = {}) {
  process.on("uncaughtException", fail);
  const help = { type: "boolean", short: "h" };
  try {
    const { values, positionals } = parseArgs({ ...config, options: { ...config.options, help } });
    if (!values.help) return { values, positionals };
  } catch (error) {
    if (!error.code?.startsWith("ERR_PARSE_ARGS_")) throw error;
    refuse(error.message.split(/\.\s/)[0]);
  }
  console.log(helpText());
  process.exit(0);
}

/** The number that `--name` was given, `least` or more. */
export function numberOption(values, name, least = 0) {
  const number = Number(values[name]);
  if (values[name] !== "" && number >= least) return number;
  return refuse(`--${name} takes a number from ${least} up, not ${JSON.stringify(values[name])}`);
}
