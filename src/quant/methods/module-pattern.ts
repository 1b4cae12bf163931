/**
 * Regular expressions that select modules, in time linear in pattern and name: both come from files that nobody vouches
 * for, and a backtracking matcher can be made to run for ever.
 */
import { unsupported } from "./method.js";

const MAX_LENGTH = 1000;
const MAX_DEPTH = 32;

type Test = (character: string) => boolean;

type Node =
  | { kind: "character"; test: Test }
  | { kind: "start" | "end" }
  | { kind: "sequence" | "choice"; nodes: Node[] }
  | { kind: "repeat"; node: Node; least: 0 | 1; many: boolean };

type State =
  | { kind: "character"; test: Test; next: number }
  | { kind: "start" | "end"; next: number }
  | { kind: "split"; next: number; other: number }
  | { kind: "match" };

const CLASSES: Readonly<Record<string, Test>> = {
  d: (character) => /[0-9]/.test(character),
  D: (character) => /[^0-9]/.test(character),
  w: (character) => /\w/.test(character),
  W: (character) => /\W/.test(character),
  s: (character) => /\s/.test(character),
  S: (character) => /\S/.test(character),
};

/**
 * True for names of which the pattern matches a beginning, as Python's `re.match`. Known: characters, `.`, classes,
 * groups, `|`, `*`, `+`, `?`, `^`, `$`. `file` is named in errors.
 * @throws UNSUPPORTED_MODEL for anything else
 */
export function compileModulePattern(pattern: string, file: string): (name: string) => boolean {
  const refuse = (what: string): never =>
    unsupported(
      file,
      `the pattern ${JSON.stringify(pattern.slice(0, 80))} of module names ${what}`,
      "Replace it by a simpler one, or by the names of the modules.",
    );
  if (pattern.length > MAX_LENGTH) refuse(`has more than ${MAX_LENGTH} characters`);
  const states: State[] = [{ kind: "match" }];
  const start = link(new PatternParser(pattern, refuse).parse(), 0, states);
  return (name) => matches(states, start, name);
}

class PatternParser {
  #position = 0;
  #depth = 0;

  constructor(
    private readonly pattern: string,
    private readonly refuse: (what: string) => never,
  ) {}

  parse(): Node {
    const node = this.#choice();
    return this.#position === this.pattern.length ? node : this.refuse("has a bracket too many");
  }

  #choice(): Node {
    if (++this.#depth > MAX_DEPTH) this.refuse("is nested too deep");
    const nodes = [this.#sequence()];
    while (this.#take("|")) nodes.push(this.#sequence());
    this.#depth--;
    return { kind: "choice", nodes };
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    while (this.#position < this.pattern.length && !"|)".includes(this.#peek())) nodes.push(this.#repeat());
    return { kind: "sequence", nodes };
  }

  #repeat(): Node {
    const node = this.#atom();
    const sign = this.#peek();
    if (sign === "{") this.refuse("counts repetitions");
    if (sign === "" || !"*+?".includes(sign)) return node;
    this.#position++;
    // Lazy and greedy differ in what they capture, not in what they match.
    this.#take("?");
    if (this.#peek() !== "" && "*+{".includes(this.#peek())) this.refuse("repeats a repetition");
    return { kind: "repeat", node, least: sign === "+" ? 1 : 0, many: sign !== "?" };
  }

  #atom(): Node {
    const character = this.#next();
    switch (character) {
      case ".":
        return { kind: "character", test: (other) => other !== "\n" };
      case "^":
        return { kind: "start" };
      case "$":
        return { kind: "end" };
      case "(":
        return this.#group();
      case "[":
        return { kind: "character", test: this.#class() };
      case "\\":
        return { kind: "character", test: this.#escape() };
      case "*":
      case "+":
      case "?":
      case "{":
        return this.refuse("repeats nothing");
      default:
        return { kind: "character", test: (other) => other === character };
    }
  }

  #group(): Node {
    if (this.#take("?") && !this.#take(":")) this.refuse("looks ahead or behind");
    const node = this.#choice();
    return this.#take(")") ? node : this.refuse("lacks a bracket");
  }

  #escape(): Test {
    const character = this.#next();
    const known = CLASSES[character];
    if (known) return known;
    if (/[A-Za-z0-9]/.test(character)) this.refuse(`has the escape \\${character}`);
    return (other) => other === character;
  }

  #class(): Test {
    const isNegated = this.#take("^");
    const tests: Test[] = [];
    do {
      const first = this.#next();
      if (first === "\\") tests.push(this.#escape());
      else if (this.#peek() === "-" && this.pattern[this.#position + 1] !== "]") {
        this.#position++;
        const last = this.#next();
        tests.push((character) => character >= first && character <= last);
      } else tests.push((character) => character === first);
    } while (this.#peek() !== "]");
    this.#position++;
    return (character) => tests.some((test) => test(character)) !== isNegated;
  }

  #peek(): string {
    return this.pattern[this.#position] ?? "";
  }

  #next(): string {
    if (this.#position === this.pattern.length) this.refuse("ends too early");
    return this.pattern[this.#position++] as string;
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#position++;
    return true;
  }
}

/** Adds states that match `node` and go on to `next`; returns the first of them. */
function link(node: Node, next: number, states: State[]): number {
  switch (node.kind) {
    case "character":
      return states.push({ kind: "character", test: node.test, next }) - 1;
    case "start":
    case "end":
      return states.push({ kind: node.kind, next }) - 1;
    case "sequence":
      return node.nodes.reduceRight((following, part) => link(part, following, states), next);
    case "choice":
      return node.nodes
        .map((part) => link(part, next, states))
        .reduceRight((other, first) => states.push({ kind: "split", next: first, other }) - 1);
    case "repeat": {
      if (!node.many) return states.push({ kind: "split", next: link(node.node, next, states), other: next }) - 1;
      const loop: State = { kind: "split", next, other: next };
      const index = states.push(loop) - 1;
      const body = link(node.node, index, states);
      loop.next = body;
      return node.least === 1 ? body : index;
    }
  }
}

function matches(states: readonly State[], start: number, name: string): boolean {
  let current = new Set<number>();
  const enter = (first: number, position: number, into: Set<number>) => {
    const pending = [first];
    while (pending.length > 0) {
      const index = pending.pop() as number;
      const state = states[index] as State;
      if (into.has(index)) continue;
      into.add(index);
      if (state.kind === "split") pending.push(state.next, state.other);
      else if (state.kind === "start" && position === 0) pending.push(state.next);
      else if (state.kind === "end" && position === name.length) pending.push(state.next);
    }
  };
  enter(start, 0, current);
  for (let position = 0; position < name.length && current.size > 0; position++) {
    if (current.has(0)) return true;
    const following = new Set<number>();
    for (const index of current) {
      const state = states[index] as State;
      if (state.kind === "character" && state.test(name[position] as string))
        enter(state.next, position + 1, following);
    }
    current = following;
  }
  return current.has(0);
}
