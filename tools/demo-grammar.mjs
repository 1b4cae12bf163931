/**
 * The grammar of the demo model's language: words, a seeded random source, and the kinds of document
 * that tools/demo-corpus.mjs writes: stories, remembered facts, counting, arithmetic and chats.
 *
 * Every function takes a `Random` and is a pure function of its state. A `Random` belongs to one of two
 * splits: training and held-out. Some lists of numbers occur in the held-out split only (see
 * `countingNumbers`); the rest of the language is far too large to be learnt by heart.
 */

const GIRLS = "Mia Anna Lucy Rosa Ella Nora Ruby Clara Ivy Emma Zoe Lily Maya Alice Sofia Hana Greta Freya".split(" ");
const BOYS = "Tom Ben Leo Max Sam Noah Finn Jack Oscar Hugo Adam Omar Ravi Theo Felix Luca Milo Otto".split(" ");
export const NAMES = [...GIRLS, ...BOYS];
export const PET_NAMES =
  "Biscuit Pepper Socks Shadow Button Ginger Pickle Dusty Waffle Coco Marble Rusty Snow Pip".split(" ");
export const ANIMALS = "dog cat rabbit pony goat duck mouse parrot turtle hen".split(" ");
const RIDDLERS = "fox owl bear crow badger frog wolf troll".split(" ");
export const COLORS = "red blue green yellow white black silver golden purple brown".split(" ");
const OBJECTS = (
  "key ball drum cup ring hat book coin bell lamp kite whistle scarf spoon mirror feather " + "map shell flute candle"
).split(" ");
const HIDING_PLACES = [
  ...["box", "drawer", "basket", "barn", "chest", "jar", "kitchen", "boat"].map((place) => `in the ${place}`),
  ...["bed", "table", "stairs", "bridge"].map((place) => `under the ${place}`),
  ...["door", "clock", "wall", "oven"].map((place) => `behind the ${place}`),
  ...["shelf", "roof", "chair", "window"].map((place) => `on the ${place}`),
];
const HOMES = "village mill castle harbor valley lighthouse farm cottage".split(" ");
const PLACES = "forest river market garden hill lake beach meadow tower cave".split(" ");
const FOODS = "apples carrots cheese bread honey berries nuts cakes pears corn".split(" ");
const COUNTED = "shells apples stones flowers nuts pears eggs berries leaves coins".split(" ");
const TRAITS = "brave clever kind quiet curious cheerful careful bold gentle proud".split(" ");
const WEATHER = "sunny rainy windy cold warm foggy snowy bright".split(" ");

const MAX_ADDEND = 12;
const MAX_MINUEND = 20;
const MAX_COUNT = 100;
const COUNTING_STEPS = [1, 1, 1, -1, -1, 2, 5, 10];

/** 32-bit FNV-1a over the UTF-16 code units of `text`. */
function hash(text) {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}

/** Mulberry32, seeded by a string; `heldOut` says which split it draws from. */
export class Random {
  #state;

  constructor(seed, heldOut = false) {
    this.#state = hash(seed);
    this.heldOut = heldOut;
  }

  /** A number in [0, 1). */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from `low` to `high`, both included. */
  integer(low, high) {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  chance(probability) {
    return this.next() < probability;
  }

  pick(items) {
    return items[this.integer(0, items.length - 1)];
  }

  /** `count` distinct items in random order. */
  sample(items, count) {
    const pool = [...items];
    for (let index = 0; index < count; index++) {
      const other = this.integer(index, pool.length - 1);
      [pool[index], pool[other]] = [pool[other], pool[index]];
    }
    return pool.slice(0, count);
  }
}

export const capitalize = (text) => text[0].toUpperCase() + text.slice(1);

function people(random, count) {
  return random.sample(NAMES, count).map(person);
}

function person(name) {
  const girl = GIRLS.includes(name);
  return { name, child: girl ? "girl" : "boy", she: girl ? "she" : "he", her: girl ? "her" : "his" };
}

/** `count` hidden things with distinct colors, objects and places. */
export function facts(random, count, hidingPlaces = HIDING_PLACES) {
  const colors = random.sample(COLORS, count);
  const objects = random.sample(OBJECTS, count);
  const places = random.sample(hidingPlaces, count);
  return colors.map((color, index) => ({ thing: `${color} ${objects[index]}`, place: places[index] }));
}

/** "7 + 5 = 12" or "9 - 3 = 6", as question ("7 + 5 =") and result ("12"). */
export function sum(random) {
  if (random.chance(0.5)) {
    const [left, right] = [random.integer(0, MAX_ADDEND), random.integer(0, MAX_ADDEND)];
    return { left, right, sign: "+", question: `${left} + ${right} =`, result: `${left + right}` };
  }
  const left = random.integer(0, MAX_MINUEND);
  const right = random.integer(0, left);
  return { left, right, sign: "-", question: `${left} - ${right} =`, result: `${left - right}` };
}

const written = ({ question, result }) => `${question} ${result}`;

/** `length` numbers in equal steps. One (first number, step) in eight is reserved for the held-out split. */
export function countingNumbers(random, length) {
  for (;;) {
    const step = random.pick(COUNTING_STEPS);
    const first = random.integer(0, MAX_COUNT);
    const last = first + step * (length - 1);
    if (last >= 0 && last <= MAX_COUNT && ((hash(`${first} ${step}`) >>> 13) % 8 === 0) === random.heldOut) {
      return { step, numbers: Array.from({ length }, (_, index) => first + step * index) };
    }
  }
}

/** Words that introduce a list of numbers: "Count by 5 from 20:". */
export function countingTitle({ step, numbers }) {
  const way = step === 1 ? "up" : step === -1 ? "down" : `by ${step}`;
  return `Count ${way} from ${numbers[0]}:`;
}

/** Lines such as "Count up from 4: 4, 5, 6, 7." */
export function countingPage(random, lines) {
  return Array.from({ length: lines }, () => {
    const counting = countingNumbers(random, random.integer(5, 10));
    const list = `${counting.numbers.join(", ")}.`;
    return random.chance(0.7) ? `${countingTitle(counting)} ${list}` : list;
  }).join("\n");
}

/** Lines such as "7 + 5 = 12. 9 - 3 = 6." */
export function arithmeticPage(random, lines) {
  const line = () => Array.from({ length: random.integer(2, 5) }, () => `${written(sum(random))}.`).join(" ");
  return Array.from({ length: lines }, line).join("\n");
}

const HIDING_VERBS = ["put", "hid", "left", "kept"];

/** Facts about who put what where, and the questions they answer. */
export function remembering(random, count, hidingPlaces = HIDING_PLACES) {
  const things = facts(random, count, hidingPlaces);
  const actors = people(random, count);
  const sentences = things.map(
    ({ thing, place }, index) => `${actors[index].name} ${random.pick(HIDING_VERBS)} the ${thing} ${place}.`,
  );
  for (let extra = random.integer(0, 2); extra > 0; extra--) {
    sentences.splice(random.integer(0, sentences.length), 0, `It was a ${random.pick(WEATHER)} day.`);
  }
  const questions = things.flatMap(({ thing, place }, index) => [
    { question: `Where is the ${thing}?`, answer: `${capitalize(place)}.` },
    { question: `Who had the ${thing}?`, answer: `${actors[index].name}.` },
  ]);
  return { text: sentences.join(" "), questions: random.sample(questions, questions.length) };
}

function page({ text, questions }) {
  return [text, ...questions.map(({ question, answer }) => `${question} ${answer}`)].join("\n");
}

export function rememberingPage(random, count) {
  return page(remembering(random, count));
}

/** Harder to guess: all places (of 2 to 4) begin with the same word, "under the bed" and "under the table". */
export function rememberingLesson(random, count) {
  const [preposition] = random.pick(HIDING_PLACES).split(" ");
  const alike = HIDING_PLACES.filter((place) => place.startsWith(preposition));
  return page(remembering(random, count, alike));
}

/** Everything that stays true throughout a story. */
function world(random, heroName) {
  const friend = random.pick(NAMES.filter((name) => name !== heroName));
  const [treasure, lost] = facts(random, 2);
  return {
    hero: person(heroName),
    friend: person(friend),
    pet: random.pick(PET_NAMES),
    animal: random.pick(ANIMALS),
    food: random.pick(FOODS),
    home: random.pick(HOMES),
    number: random.integer(2, 12),
    treasure,
    lost,
  };
}

function introduction(random, { hero, friend, pet, animal, food, home, number, treasure }) {
  const { name, child, she, her } = hero;
  const She = capitalize(she);
  const Her = capitalize(her);
  const start = random.pick([
    `Once upon a time there was a ${random.pick(TRAITS)} ${child} called ${name}. ${She} lived in a ${home}`,
    `${name} was a ${random.pick(TRAITS)} ${child} who lived in a ${home}`,
    `In a ${home} there lived a ${random.pick(TRAITS)} ${child} called ${name}. ${She} lived there`,
  ]);
  const rest = random.sample(
    [
      `${pet} loved ${food} more than anything.`,
      `${Her} best friend was ${friend.name}.`,
      `${Her} lucky number was ${number}.`,
      `${name} had a ${treasure.thing}, and ${she} kept it ${treasure.place}.`,
    ],
    4,
  );
  return `${start} with a ${animal} called ${pet}. ${rest.join(" ")}`;
}

const CHAPTERS = [
  (random, { hero, friend, treasure }) =>
    `One ${random.pick(WEATHER)} morning, ${friend.name} asked to see the ${treasure.thing}. ${hero.name} looked ` +
    `${treasure.place}, and there it was. "How pretty it is!" said ${friend.name}. Then ${hero.name} put the ` +
    `${treasure.thing} back ${treasure.place}.`,
  (random, { hero, pet }) => {
    const [found, more] = [random.integer(2, MAX_ADDEND), random.integer(2, MAX_ADDEND)];
    const things = random.pick(COUNTED);
    return (
      `After lunch, ${hero.name} and ${pet} walked to the ${random.pick(PLACES)}. ${hero.name} found ${found} ` +
      `${things}, and ${pet} found ${more} more. ${found} + ${more} = ${found + more}, so now they had ` +
      `${found + more} ${things}.`
    );
  },
  (random, { hero, friend }) => {
    const all = random.integer(4, MAX_MINUEND);
    const given = random.integer(2, all - 2);
    const things = random.pick(COUNTED);
    return (
      `${hero.name} had ${all} ${things} and gave ${given} of them to ${friend.name}. ${all} - ${given} = ` +
      `${all - given}, so ${hero.she} kept ${all - given} ${things}. "Thank you, ${hero.name}!" said ${friend.name}.`
    );
  },
  (random, { hero, pet }) =>
    `The way to the ${random.pick(PLACES)} was long, so ${hero.name} counted the steps: ` +
    `${countingNumbers(random, random.integer(5, 8)).numbers.join(", ")}. ${pet} ran ahead and did not count at all.`,
  (random, { hero, pet, animal, food }) =>
    `One ${random.pick(WEATHER)} day, ${pet} the ${animal} was gone. ${hero.name} looked ` +
    `${random.sample(HIDING_PLACES, 2).join(" and ")}, but ${pet} was not there. Then ${hero.name} put some ${food} ` +
    `on the ground, because ${pet} loved ${food}. Soon ${pet} came running home.`,
  (random, { hero, friend, lost }) =>
    `${friend.name} had lost a ${lost.thing} and was very sad. "Do not cry," said ${hero.name}. They looked ` +
    `${random.pick(HIDING_PLACES.filter((place) => place !== lost.place))}, but it was not there. They looked ` +
    `${lost.place}, and there was the ${lost.thing}! ${friend.name} laughed and danced.`,
  (random, { hero, pet }) => {
    const riddler = random.pick(RIDDLERS);
    const riddle = sum(random);
    return (
      `At the bridge sat an old ${riddler}. "What is ${riddle.left} ${riddle.sign} ${riddle.right}?" asked the ` +
      `${riddler}. "${written(riddle)}," said ${hero.name}. "That is right," said the ${riddler}, and let ` +
      `${hero.name} and ${pet} cross.`
    );
  },
  (random, { hero, number }) => {
    const things = random.pick(FOODS.filter((food) => food.endsWith("s")));
    return (
      `At the market, the baker asked how many ${things} ${hero.name} wanted. ${hero.name} thought of ${hero.her} ` +
      `lucky number and said, "I want ${number}." So the baker gave ${hero.name} ${number} ${things}.`
    );
  },
  (random, { hero, friend }) => {
    const place = random.pick(PLACES);
    return (
      `A letter came from ${friend.name}. "Dear ${hero.name}, please meet me at the ${place}," it said. So ` +
      `${hero.name} went to the ${place}, and there was ${friend.name}. They played until the sun went down.`
    );
  },
  (random, { hero, pet }) => {
    const place = random.pick(PLACES);
    return (
      `Then the wind blew and the rain came down over the ${place}. ${hero.name} and ${pet} hid under a big tree. ` +
      `They were wet and cold, but they were not afraid. When the sun came out, they ran all over the ${place}.`
    );
  },
];

function ending(random, { hero, pet, home, friend }) {
  const from = random.integer(4, 10);
  const down = Array.from({ length: from }, (_, index) => from - index).join(", ");
  return random.pick([
    `That night ${hero.name} could not sleep, so ${hero.she} counted down: ${down}. Then ${hero.she} slept. The end.`,
    `In the evening ${hero.name} and ${pet} came home to the ${home}. They were tired and happy. The end.`,
    `${hero.name} said good night to ${friend.name} and to ${pet}. It had been a very good day. The end.`,
  ]);
}

function storyQuestions({ hero, friend, pet, animal, food, home, number, treasure }) {
  return [
    { question: `Where is the ${treasure.thing}?`, answer: `${capitalize(treasure.place)}.` },
    { question: `What is the ${animal} called?`, answer: `${pet}.` },
    { question: `What does ${pet} love?`, answer: `${capitalize(food)}.` },
    { question: `What is the lucky number of ${hero.name}?`, answer: `${number}.` },
    { question: `Who is the best friend of ${hero.name}?`, answer: `${friend.name}.` },
    { question: `Where does ${hero.name} live?`, answer: `In a ${home}.` },
  ];
}

/** A story of `chapters` (1 to 10) paragraphs between introduction and end, and questions that it answers. */
export function story(random, chapters, heroName = random.pick(NAMES)) {
  const setting = world(random, heroName);
  const middle = random.sample(CHAPTERS, chapters).map((chapter) => chapter(random, setting));
  const questions = storyQuestions(setting);
  return {
    text: [introduction(random, setting), ...middle, ending(random, setting)].join("\n\n"),
    questions: random.sample(questions, questions.length),
  };
}

export function storyPage(random, chapters) {
  const { text, questions } = story(random, chapters);
  if (random.chance(0.4)) {
    return text;
  }
  return [`${text}\n`, ...questions.map(({ question, answer }) => `${question} ${answer}`)].join("\n");
}
