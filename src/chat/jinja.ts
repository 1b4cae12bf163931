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
  evaluate(statement: object | undefined, scope: JinjaScope): JinjaValue;
}
/** A parsed template. */
export interface JinjaProgram {
  readonly type: "Program";
}

const { tokenize, parse, Environment, Interpreter }: Jinja = library;

/** What a template may cost before it is taken for endless: expressions evaluated, plus 1 for each 256 characters or items. */
const MAX_COST = 2_000_000;
const MAX_LENGTH = 2 ** 24;
/** The limit of Jinja's own sandbox. */
const MAX_RANGE = 100_000;

/** What the template says through `raise_exception`. */
export class TemplateRefusal extends Error {
  override readonly name = "TemplateRefusal";
}

/** Whitespace is trimmed around blocks as transformers does for chat templates. Throws SyntaxError and RangeError. */
export function parseJinja(source: string): JinjaProgram {
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

  override evaluate(statement: object | undefined, scope: JinjaScope): JinjaValue {
    const result = super.evaluate(statement, scope);
    const { value } = result;
    const length = typeof value === "string" || Array.isArray(value) ? value.length : 0;
    if (length > MAX_LENGTH) throw new Error(`it makes a value longer than ${MAX_LENGTH}`);
    this.cost += 1 + (length >> 8);
    if (this.cost > MAX_COST) throw new Error("it takes too long; it may be endless");
    return result;
  }
}

function boundedRange(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  if (![start, stop, step].every(Number.isInteger) || step === 0) throw new Error("range() needs whole numbers");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_RANGE) throw new Error(`range() of ${length} items; at most ${MAX_RANGE} are allowed`);
  return Array.from({ length }, (_, i) => start + i * step);
}
