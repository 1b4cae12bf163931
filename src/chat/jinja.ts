import * as library from "@huggingface/jinja";
import { strftime } from "./strftime.js";

/** What is used of the library. Its own declarations do not resolve under NodeNext: they import without extensions. */
interface Jinja {
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): object[];
  parse(tokens: object[]): JinjaProgram;
  Environment: new (parent?: JinjaScope) => JinjaScope;
  Interpreter: new (scope: JinjaScope) => JinjaInterpreter;
}
interface JinjaScope {
  set(name: string, value: unknown): void;
}
interface JinjaValue {
  value: unknown;
}
interface JinjaInterpreter {
  run(program: JinjaProgram): JinjaValue;
  evaluate(statement: JinjaNode | undefined, scope: JinjaScope): JinjaValue;
  evaluateBlock(statements: JinjaNode[], scope: JinjaScope): JinjaValue;
}
/** A node of a parsed template, with the parts that other nodes are computed from. */
interface JinjaNode {
  type: string;
  operand?: JinjaNode;
  left?: JinjaNode;
  right?: JinjaNode;
  lhs?: JinjaNode;
  iterable?: JinjaNode;
  property?: JinjaNode;
  filter?: { value?: unknown };
  args?: JinjaNode[];
}
/** A parsed template. */
export interface JinjaProgram {
  readonly type: "Program";
}

const { tokenize, parse, Environment, Interpreter }: Jinja = library;

/**
 * What a template may cost before it is taken for endless: 1 for each expression, more for each round of a loop, and what
 * the values that are computed with hold, by the characters and items that take as much time as an expression.
 */
const MAX_COST = 1_000_000;
const CHARACTERS_A_COST = 256;
const ITEM_COST = 0.5;
/** A loop prepares all its rounds before the first. */
const LOOP_ITEM_COST = 3;
const ROUND_COST = 4;
/** Filters that look at no more than one item. */
const QUICK_FILTERS: readonly unknown[] = ["length", "count", "first", "last"];
const MAX_LENGTH = 2 ** 24;
/** The limit of Jinja's own sandbox. */
const MAX_RANGE = 100_000;

/** What the template says through `raise_exception`. */
export class TemplateRefusal extends Error {
  override readonly name = "TemplateRefusal";
}

/** The library takes quadratic time for runs of white space: this many steps are some tenths of a second. */
const MAX_SPACE_STEPS = 2 ** 26;

/**
 * White space is trimmed around blocks as transformers does for chat templates. Throws SyntaxError and RangeError, and
 * Error for templates that would take too long to read.
 */
export function parseJinja(source: string): JinjaProgram {
  let steps = 0;
  for (const [run] of source.matchAll(/\s{64,}/g)) steps += run.length ** 2;
  if (steps > MAX_SPACE_STEPS) throw new Error("it has more white space than any template needs");
  return parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}

/**
 * Renders with the globals that transformers gives to chat templates. Throws TemplateRefusal for what the template
 * raises itself, Error for everything else, including templates that do not end or that grow without bound.
 */
export function renderJinja(program: JinjaProgram, variables: Readonly<Record<string, unknown>>): string {
  const environment = new Environment();
  for (const [name, value] of Object.entries(GLOBALS)) environment.set(name, value);
  const scope = new Environment(environment);
  for (const [name, value] of Object.entries(variables)) scope.set(name, value);
  return String(new BoundedInterpreter(scope).run(program).value);
}

const GLOBALS: Readonly<Record<string, unknown>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  raise_exception: (message: unknown): never => {
    throw new TemplateRefusal(String(message));
  },
  range: boundedRange,
  strftime_now: (format: unknown): string => strftime(String(format), new Date()),
};

/** The library has no limits of its own; all evaluation passes through `evaluate`. */
class BoundedInterpreter extends Interpreter {
  private cost = 0;
  /** Nodes whose whole value an operator, a filter, a call, a loop or the output goes through: what an item costs. */
  private readonly consumed = new Map<JinjaNode, number>();

  override evaluate(node: JinjaNode | undefined, scope: JinjaScope): JinjaValue {
    for (const part of consumedParts(node)) {
      this.consumed.set(part, part === node?.iterable ? LOOP_ITEM_COST : ITEM_COST);
    }
    const result = super.evaluate(node, scope);
    const itemCost = node && this.consumed.get(node);
    if (typeof result.value === "string") this.spendString(result.value);
    else if (itemCost !== undefined) this.spendItems(result, itemCost);
    else if (Array.isArray(result.value) && !isReference(node)) this.spend(result.value.length * ITEM_COST);
    this.spend(1);
    return result;
  }

  /** A round of a loop with an empty body evaluates nothing else. */
  override evaluateBlock(statements: JinjaNode[], scope: JinjaScope): JinjaValue {
    for (const statement of statements) this.consumed.set(statement, ITEM_COST);
    this.spend(ROUND_COST);
    return super.evaluateBlock(statements, scope);
  }

  private spendString({ length }: string): void {
    if (length > MAX_LENGTH) throw new Error(`it makes a value longer than ${MAX_LENGTH}`);
    this.spend(length / CHARACTERS_A_COST);
  }

  /** Every item counts as often as it is reached: lists that hold one another grow without being stored. */
  private spendItems(value: JinjaValue, itemCost: number): void {
    const open: unknown[] = [value.value];
    while (open.length > 0) {
      const content = open.pop();
      if (!Array.isArray(content) && !(content instanceof Map)) continue;
      for (const item of content.values() as Iterable<JinjaValue>) {
        this.spend(itemCost);
        open.push(item.value);
      }
    }
  }

  private spend(cost: number): void {
    this.cost += cost;
    if (this.cost > MAX_COST) throw new Error("it takes too long; it may be endless");
  }
}

function consumedParts(node: JinjaNode | undefined): JinjaNode[] {
  if (node === undefined || QUICK_FILTERS.includes(node.filter?.value)) return [];
  const { operand, left, right, lhs, iterable, args } = node;
  return [operand, left, right, lhs, iterable, ...(args ?? [])].filter((part) => part !== undefined);
}

/** A value that exists already, named. */
function isReference(node: JinjaNode | undefined): boolean {
  if (node?.type === "MemberExpression") return node.property?.type !== "SliceExpression";
  return node?.type === "Identifier";
}

function boundedRange(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  if (![start, stop, step].every(Number.isInteger) || step === 0) throw new Error("range() needs whole numbers");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_RANGE) throw new Error(`range() of ${length} items; at most ${MAX_RANGE} are allowed`);
  return Array.from({ length }, (_, i) => start + i * step);
}
