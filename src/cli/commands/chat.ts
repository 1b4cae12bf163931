import { createInterface } from "node:readline";
import type { Command } from "commander";
import { LayerstreamError } from "../../errors.js";
import { ChatSession } from "../chat-session.js";
import type { Interrupts } from "../interrupts.js";
import { addModelOptions, loadModel, type ModelOptions } from "../model-options.js";
import { reportProfile } from "../profile-report.js";
import { addSamplingOptions, type SamplingChoices } from "../sampling-options.js";
import { formatStats } from "../stats-table.js";

interface Options extends ModelOptions, SamplingChoices {
  system?: string;
  json?: boolean;
}

const help = `Commands: /reset forgets the conversation, /stats prints what it cost, /exit leaves.
Ctrl-C stops an answer; once more leaves.`;

/** `layerstream chat`: a conversation in the terminal, or one turn a line from a pipe. */
export function addChatCommand(program: Command, interrupts: Interrupts): void {
  const command = program
    .command("chat")
    .description("talk to a model; from a pipe, each line is a turn")
    .argument("<model>", "checkpoint, GGUF file or layer store")
    .option("--system <text>", "the system message");
  addModelOptions(addSamplingOptions(command))
    .option("--json", "print one JSON object a turn: { text, tokens, promptTokens, finishReason }")
    .addHelpText("after", `\n${help}`)
    .action(async (modelPath: string, options: Options) => {
      const model = await loadModel(modelPath, options, interrupts);
      try {
        if (!model.tokenizer?.hasChatTemplate) {
          throw new LayerstreamError("CHAT_TEMPLATE_INVALID", `${modelPath} has no chat template.`, {
            remedy: "Use `layerstream generate`, or a model that is made for chat.",
          });
        }
        await converse(new ChatSession(model, options), options, interrupts);
        await reportProfile(model, { profile: options.profile, trace: options.trace });
      } finally {
        await model.dispose();
      }
    });
}

async function converse(session: ChatSession, options: Options, interrupts: Interrupts): Promise<void> {
  const terminal = Boolean(process.stdin.isTTY && process.stdout.isTTY) && !options.json;
  const lines = createInterface({ input: process.stdin, output: terminal ? process.stdout : undefined, terminal });
  let open = true;
  lines.once("close", () => {
    open = false;
  });
  // Lines that were read ahead still come after the end of a pipe.
  const ask = () => open && terminal && lines.prompt();
  let leaving = false;
  const interrupt = () => {
    const stopped = session.stopAnswer();
    if (leaving) lines.close();
    else if (!stopped) process.stdout.write("\n(Ctrl-C again or /exit leaves)\n> ");
    leaving = true;
  };
  lines.on("SIGINT", interrupt);
  if (terminal) interrupts.handleWith(interrupt);
  interrupts.signal.addEventListener("abort", () => {
    session.stopAnswer();
    lines.close();
  });
  try {
    if (terminal) process.stdout.write(`${help}\n\n`);
    lines.setPrompt("> ");
    ask();
    for await (const line of lines) {
      leaving = false;
      if (line.trim() === "/exit" || interrupts.signal.aborted) break;
      if (line.trim() !== "") await takeTurn(session, line.trim(), options, terminal);
      ask();
    }
  } finally {
    interrupts.handleWith(undefined);
    lines.close();
    if (terminal) process.stdout.write("\n");
  }
}

async function takeTurn(session: ChatSession, line: string, options: Options, terminal: boolean): Promise<void> {
  if (line === "/reset") session.reset();
  else if (line === "/stats") process.stdout.write(`${formatStats(session.stats())}\n`);
  else if (line.startsWith("/")) process.stdout.write(`${line} is no command. ${help}\n`);
  else if (options.json) process.stdout.write(`${JSON.stringify(await session.answer(line, () => {}))}\n`);
  else {
    try {
      await session.answer(line, (text) => process.stdout.write(text));
      process.stdout.write("\n");
    } catch (error) {
      // In a terminal the conversation goes on, for example after a message that is too long.
      if (!terminal || !(error instanceof LayerstreamError)) throw error;
      process.stdout.write(`${error.message}\n`);
    }
  }
}
