/**
 * The corpus of the demo model, and its held-out set. The same seed gives the same bytes everywhere.
 *
 *   node tools/demo-corpus.mjs --out DIR [--seed 7] [--documents 24000]
 *
 * writes DIR/corpus.jsonl, one training document a line: {"text": ...} or {"messages": [...]} (a chat), and
 * DIR/heldout.json, what `heldOut(1)` returns. tools/train-demo.py reads both. See tools/demo-grammar.mjs for the language.
 */
import { createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { conversation } from "./demo-chat.mjs";
import {
  arithmeticPage,
  countingNumbers,
  countingPage,
  countingTitle,
  Random,
  remembering,
  rememberingLesson,
  rememberingPage,
  storyPage,
  sum,
} from "./demo-grammar.mjs";
import { readOptions, refuse } from "./options.mjs";

const TASKS_PER_KIND = 50;
const HELD_OUT_CHARACTERS = 20_000;

function textDocument(random) {
  const kind = random.next();
  if (kind < 0.4) {
    return storyPage(random, random.chance(0.15) ? random.integer(5, 9) : random.integer(1, 4));
  }
  if (kind < 0.75) {
    return rememberingPage(random, random.integer(2, 5));
  }
  return kind < 0.88 ? arithmeticPage(random, random.integer(3, 12)) : countingPage(random, random.integer(3, 8));
}

/**
 * Training document `index` of `documents`. The first fifth only asks for remembered facts: looking back is
 * what a small model learns last, and everything else comes quickly after it.
 */
export function trainingDocument(seed, index, documents) {
  const random = new Random(`training ${seed} ${index}`);
  if (index < documents * 0.2) {
    return { text: (random.chance(0.5) ? rememberingLesson : rememberingPage)(random, random.integer(2, 4)) };
  }
  return random.chance(0.3) ? { messages: conversation(random) } : { text: textDocument(random) };
}

const TASKS = {
  recall: (random) => {
    const { text, questions } = remembering(random, random.integer(3, 4));
    const asked = questions.find(({ question }) => question.startsWith("Where"));
    return { prompt: `${text}\n${asked.question}`, answer: asked.answer };
  },
  counting: (random) => {
    const counting = countingNumbers(random, 7);
    const shown = counting.numbers.slice(0, 4).join(", ");
    const prompt = random.chance(0.7) ? `${countingTitle(counting)} ${shown},` : `${shown},`;
    return { prompt, answer: `${counting.numbers.slice(4).join(", ")}` };
  },
  arithmetic: (random) => {
    const shown = [sum(random), sum(random)].map(({ question, result }) => `${question} ${result}.`);
    const asked = sum(random);
    return { prompt: `${[...shown, asked.question].join(" ")}`, answer: `${asked.result}.` };
  },
};

/**
 * The held-out set: texts for perplexity and tasks with one right answer each, a pure function of `seed`.
 *
 * Held out means: no training document contains the prompt of a recall or arithmetic task of `heldOut(1)` (the generator
 * drops those that do), and no list of numbers in training begins with the same number and has the same step. A single
 * fact or sum of a prompt may have been seen, among other facts and sums.
 *
 * A task is solved if the greedy continuation of `prompt`, without leading white space, begins with `answer`.
 *
 * @param {number} seed
 * @returns {{ texts: string[], tasks: { kind: "recall" | "counting" | "arithmetic", prompt: string, answer: string }[] }}
 */
export function heldOut(seed) {
  const texts = [];
  for (let characters = 0, index = 0; characters < HELD_OUT_CHARACTERS; index++) {
    const text = textDocument(new Random(`held-out text ${seed} ${index}`, true));
    texts.push(text);
    characters += text.length;
  }
  const tasks = Object.entries(TASKS).flatMap(([kind, make]) =>
    Array.from({ length: TASKS_PER_KIND }, (_, index) => ({
      kind,
      ...make(new Random(`held-out ${kind} ${seed} ${index}`, true)),
    })),
  );
  return { texts, tasks };
}

async function writeCorpus(directory, seed, documents) {
  mkdirSync(directory, { recursive: true });
  const held = heldOut(1);
  writeFileSync(join(directory, "heldout.json"), JSON.stringify(held));
  const prompts = held.tasks
    .filter(({ kind }) => kind !== "counting")
    .map(({ prompt }) => JSON.stringify(prompt).slice(1, -1));
  const output = createWriteStream(join(directory, "corpus.jsonl"));
  for (let index = 0; index < documents; index++) {
    const line = JSON.stringify(trainingDocument(seed, index, documents));
    if (!prompts.some((prompt) => line.includes(prompt))) {
      output.write(`${line}\n`);
    }
  }
  output.end();
  await finished(output);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = readOptions({
    options: {
      out: { type: "string" },
      seed: { type: "string", default: "7" },
      documents: { type: "string", default: "24000" },
    },
  });
  if (values.out === undefined) refuse("say where to, with --out");
  await writeCorpus(values.out, values.seed, Number(values.documents));
}
