/**
 * The conversations of the demo model's language: a user who tells things, asks about them later, and
 * asks for sums, counting and stories. See tools/demo-grammar.mjs for the words and the two splits.
 */
import { ANIMALS, COLORS, capitalize, countingNumbers, facts, NAMES, PET_NAMES, story, sum } from "./demo-grammar.mjs";

const SYSTEM_PROMPTS = [
  "You are a helpful assistant.",
  "You are a friendly storyteller.",
  "Answer briefly.",
  "You are a small model that tells stories.",
];

const SIGN_WORDS = { "+": "plus", "-": "minus" };

function sumTurn(random) {
  const { left, right, sign, question, result } = sum(random);
  const asked = random.pick([
    `What is ${left} ${sign} ${right}?`,
    `What is ${left} ${SIGN_WORDS[sign]} ${right}?`,
    `How much is ${left} ${sign} ${right}?`,
    question,
  ]);
  return [asked, `${question} ${result}.`];
}

function countingTurn(random) {
  const { step, numbers } = countingNumbers(random, random.integer(4, 12));
  const [first, last] = [numbers[0], numbers.at(-1)];
  const way = step === 1 ? random.pick(["", " up"]) : step === -1 ? " down" : ` by ${step}`;
  return [`${random.pick(["Count", "Please count"])}${way} from ${first} to ${last}.`, `${numbers.join(", ")}.`];
}

/** A request for a story, then questions about it. */
function storyTurns(random) {
  const hero = random.pick(NAMES);
  const { text, questions } = story(random, random.integer(1, 3), hero);
  const request = random.pick(["Tell me a story", "Please tell me a story", "I want a story"]);
  const asked = questions.slice(0, random.integer(0, 2)).map(({ question, answer }) => [question, answer]);
  return [[random.chance(0.25) ? `${request}.` : `${request} about ${hero}.`, text], ...asked];
}

function smallTalk(random) {
  return random.pick([
    ["Hello!", "Hello! I can tell stories, count, add and remember."],
    ["Hi!", "Hello! I can tell stories, count, add and remember."],
    ["Who are you?", "I am a very small language model. My layers come from the disk, one after another."],
    ["What can you do?", "I can tell stories, count, add and remember what you tell me."],
    ["How are you?", "I am very well, thank you."],
    ["Thank you!", "You are welcome."],
    ["Good night!", "Good night! Sleep well."],
  ]);
}

/** What a user may tell, the reply, and the question that asks for it later (with the answer to give if it was not told). */
function memories(random) {
  const name = random.pick(NAMES);
  const [animal, pet] = [random.pick(ANIMALS), random.pick(PET_NAMES)];
  const color = random.pick(COLORS);
  const number = random.integer(2, 20);
  const hidden = facts(random, 3).map(({ thing, place }) => ({
    told: random.pick([
      `I put the ${thing} ${place}.`,
      `I hid the ${thing} ${place}.`,
      `The ${thing} is ${place}.`,
      `${random.pick(NAMES)} put the ${thing} ${place}.`,
    ]),
    reply: `I will remember that the ${thing} is ${place}.`,
    question: random.pick([`Where is the ${thing}?`, `Do you remember where the ${thing} is?`]),
    answer: `The ${thing} is ${place}.`,
    unknown: `You have not told me where the ${thing} is.`,
  }));
  return [
    ...hidden,
    {
      told: random.pick([`My name is ${name}.`, `Hello! My name is ${name}.`, `I am ${name}.`]),
      reply: `Hello, ${name}! I will remember your name.`,
      question: "What is my name?",
      answer: `Your name is ${name}.`,
      unknown: "You have not told me your name.",
    },
    {
      told: `My ${animal} is called ${pet}.`,
      reply: `${pet} is a good name for a ${animal}.`,
      question: random.pick([`What is my ${animal} called?`, `What is the name of my ${animal}?`]),
      answer: `Your ${animal} is called ${pet}.`,
      unknown: `You have not told me what your ${animal} is called.`,
    },
    {
      told: `My favorite color is ${color}.`,
      reply: `${capitalize(color)} is a fine color.`,
      question: "What is my favorite color?",
      answer: `Your favorite color is ${color}.`,
      unknown: "You have not told me your favorite color.",
    },
    {
      told: `My lucky number is ${number}.`,
      reply: `I will remember the number ${number}.`,
      question: "What is my lucky number?",
      answer: `Your lucky number is ${number}.`,
      unknown: "You have not told me your lucky number.",
    },
  ];
}

/** Chat messages: [{ role, content }, ...], with a system message now and then. */
export function conversation(random) {
  const topics = random.sample(memories(random), random.integer(1, 4));
  const told = topics.filter(() => random.chance(0.8));
  const between = () => [random.pick([sumTurn, sumTurn, countingTurn, smallTalk])(random)];
  const turns = [];
  for (const { told: statement, reply } of told) {
    turns.push([statement, reply], ...(random.chance(0.4) ? between() : []));
  }
  if (random.chance(0.25)) {
    turns.push(...storyTurns(random));
  }
  for (const topic of random.sample(topics, topics.length)) {
    turns.push([topic.question, told.includes(topic) ? topic.answer : topic.unknown]);
    turns.push(...(random.chance(0.4) ? between() : []));
  }
  const opening = random.chance(0.3) ? between() : [];
  const messages = [...opening, ...turns].flatMap(([user, assistant]) => [
    { role: "user", content: user },
    { role: "assistant", content: assistant },
  ]);
  return random.chance(0.15) ? [{ role: "system", content: random.pick(SYSTEM_PROMPTS) }, ...messages] : messages;
}
