/** Readers of option values. A bad value is a usage error: commander prints it with the option's name. */
import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { InvalidArgumentError } from "commander";
import { LayerstreamError } from "../errors.js";
import { parseBytes } from "../units.js";

export type Reader<T> = (text: string) => T;

/** A whole number in [minimum, maximum]. */
export function integer(minimum: number, maximum = Number.MAX_SAFE_INTEGER): Reader<number> {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= minimum && value <= maximum) return value;
    throw new InvalidArgumentError(`It must be a whole number ${rangeText(minimum, maximum)}.`);
  };
}

/** A decimal number in [minimum, maximum]. */
export function decimal(minimum: number, maximum = Number.POSITIVE_INFINITY): Reader<number> {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isFinite(value) && value >= minimum && value <= maximum) return value;
    throw new InvalidArgumentError(`It must be a number ${rangeText(minimum, maximum)}.`);
  };
}

/** A size such as "4GiB", in bytes. */
export const bytes: Reader<number> = (text) => {
  try {
    return parseBytes(text, "The size");
  } catch (error) {
    if (!(error instanceof LayerstreamError)) throw error;
    throw new InvalidArgumentError(error.remedy ?? error.message);
  }
};

/** A file to write: a missing directory is known before the work, not after it. */
export const outputFile: Reader<string> = (text) => {
  if (text !== "" && statSync(dirname(resolve(text)), { throwIfNoEntry: false })?.isDirectory()) return text;
  throw new InvalidArgumentError("It must be a file in a directory that exists.");
};

/** Token ids such as "1,2,3". */
export const tokenIds: Reader<number[]> = (text) => {
  const ids = text.split(",").map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : Number.NaN));
  if (ids.every((id) => id <= 0xffffffff)) return ids;
  throw new InvalidArgumentError("It must be a list of token ids, for example 1,2,3.");
};

/** Collects every use of a repeatable option. */
export function collect(text: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), text];
}

function rangeText(minimum: number, maximum: number): string {
  return maximum === Number.MAX_SAFE_INTEGER || maximum === Number.POSITIVE_INFINITY
    ? `of at least ${minimum}`
    : `between ${minimum} and ${maximum}`;
}
