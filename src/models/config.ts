import { LayerstreamError } from "../errors.js";

const REMEDY = "Compare the file with the model's original config.json.";

/** Largest values that a config may ask for: far above every published model, and safe as unsigned 32-bit counts. */
export const LIMITS = {
  layers: 10_000,
  hidden: 2 ** 20,
  intermediate: 2 ** 22,
  heads: 2 ** 14,
  headDim: 2 ** 14,
  experts: 2 ** 14,
  vocab: 2 ** 24,
  positions: 2 ** 31 - 1,
} as const;

/**
 * Reads values of a config.json (or of an object within it) and refuses what it cannot mean.
 * Every method raises CONFIG_INVALID with the file, the key and the value. A key is absent when the object does not
 * have it; null is a value of its own and is only accepted by the methods that say so.
 */
export class ConfigReader {
  private constructor(
    private readonly values: Readonly<Record<string, unknown>>,
    /** Names the file in errors. */
    readonly file: string,
    private readonly prefix: string,
    private readonly spellings: Readonly<Record<string, string>> = {},
  ) {}

  static of(config: unknown, file: string): ConfigReader {
    if (!isObject(config)) {
      throw new LayerstreamError("CONFIG_INVALID", `${file} holds ${describe(config)} where an object was expected.`, {
        file,
        remedy: REMEDY,
      });
    }
    return new ConfigReader(config, file, "");
  }

  /** The same object, where the keys of `spellings` stand under other names, which errors show. */
  spelled(spellings: Readonly<Record<string, string>>): ConfigReader {
    return new ConfigReader(this.values, this.file, this.prefix, spellings);
  }

  /** The same object, where keys that it does not have have these values. */
  withDefaults(defaults: Readonly<Record<string, unknown>>): ConfigReader {
    return new ConfigReader({ ...defaults, ...this.values }, this.file, this.prefix, this.spellings);
  }

  /** True when the key is present, even as null. */
  has(key: string): boolean {
    return Object.hasOwn(this.values, this.spellingOf(key));
  }

  /** True when the key is absent or null. */
  isNull(key: string): boolean {
    return this.raw(key) === undefined || this.raw(key) === null;
  }

  /** The value as parsed, or undefined. Keys that objects inherit are never seen. */
  raw(key: string): unknown {
    return this.has(key) ? this.values[this.spellingOf(key)] : undefined;
  }

  /** A whole number from `minimum` to `maximum`; `fallback` when the key is absent, and required without one. */
  integer(key: string, minimum: number, maximum: number, fallback?: number): number {
    const value = this.has(key) ? this.raw(key) : fallback;
    if (typeof value !== "number" || !Number.isInteger(value) || value < minimum || value > maximum) {
      return this.refuse(key, `a whole number from ${minimum} to ${maximum}`);
    }
    return value;
  }

  /** A finite number above zero; `fallback` when the key is absent, and required without one. */
  positive(key: string, fallback?: number): number {
    const value = this.has(key) ? this.raw(key) : fallback;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      return this.refuse(key, "a finite number above zero");
    }
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.has(key) ? this.raw(key) : fallback;
    return typeof value === "boolean" ? value : this.refuse(key, "true or false");
  }

  string(key: string, fallback?: string): string {
    const value = this.has(key) ? this.raw(key) : fallback;
    return typeof value === "string" ? value : this.refuse(key, "a string");
  }

  /** Undefined when the key is absent or null. */
  strings(key: string): readonly string[] | undefined {
    if (this.isNull(key)) return undefined;
    const value = this.raw(key);
    const valid = Array.isArray(value) && value.every((entry): entry is string => typeof entry === "string");
    return valid ? value : this.refuse(key, "a list of strings");
  }

  /** Whole numbers from 0 on; empty when the key is absent or null. */
  integers(key: string): readonly number[] {
    if (this.isNull(key)) return [];
    const value = this.raw(key);
    const valid =
      Array.isArray(value) && value.every((entry): entry is number => Number.isInteger(entry) && entry >= 0);
    return valid ? value : this.refuse(key, "a list of whole numbers");
  }

  /** A list of `count` finite numbers above zero. */
  positives(key: string, count: number): readonly number[] {
    const value = this.raw(key);
    const valid =
      Array.isArray(value) &&
      value.length === count &&
      value.every((entry): entry is number => typeof entry === "number" && Number.isFinite(entry) && entry > 0);
    return valid ? value : this.refuse(key, `a list of ${count} finite numbers above zero`);
  }

  /** A reader of the object under `key`; undefined when the key is absent or null. */
  object(key: string): ConfigReader | undefined {
    if (this.isNull(key)) return undefined;
    const value = this.raw(key);
    if (!isObject(value)) return this.refuse(key, "an object");
    return new ConfigReader(value, this.file, `${this.prefix}${key}.`);
  }

  get isEmpty(): boolean {
    return Object.keys(this.values).length === 0;
  }

  /** Raises CONFIG_INVALID: the key's value is not `expected`. */
  refuse(key: string, expected: string): never {
    const name = this.prefix + this.spellingOf(key);
    const what = this.has(key) ? `${name} is ${describe(this.raw(key))}` : `${name} is missing`;
    throw new LayerstreamError("CONFIG_INVALID", `${this.file}: ${what}; it must be ${expected}.`, {
      file: this.file,
      remedy: REMEDY,
    });
  }

  /** Raises UNSUPPORTED_MODEL: the key's value has a meaning, but not one that layerstream executes. */
  unsupported(key: string, supported: string): never {
    throw new LayerstreamError(
      "UNSUPPORTED_MODEL",
      `${this.file}: ${this.prefix}${this.spellingOf(key)} is ${describe(this.raw(key))}, which layerstream does not support.`,
      { file: this.file, remedy: supported },
    );
  }

  private spellingOf(key: string): string {
    return Object.hasOwn(this.spellings, key) ? (this.spellings[key] as string) : key;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as it stands in an error message: short, whatever the file holds. */
function describe(value: unknown): string {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (isObject(value)) return "an object";
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
  return String(value);
}
