import { InvalidArgumentError } from "commander";
import { describe, expect, it } from "vitest";
import { bytes, collect, decimal, integer, tokenIds } from "../../dist/cli/arguments.js";

describe("integer", () => {
  it.each([
    ["0", 0],
    ["+7", 7],
    ["10", 10],
  ])("reads %s", (text, value) => {
    expect(integer(0, 10)(text)).toBe(value);
  });

  it.each(["", " ", "11", "-1", "1.5", "1e1", "0x1", "ten", "9007199254740993"])("refuses %j", (text) => {
    expect(() => integer(0, 10)(text)).toThrow(InvalidArgumentError);
  });

  it("names the range", () => {
    expect(() => integer(1, 8)("9")).toThrow("between 1 and 8");
    expect(() => integer(1)("0")).toThrow("of at least 1");
    expect(() => integer(1)("9007199254740993")).toThrow("of at least 1");
  });
});

describe("decimal", () => {
  it.each([
    ["0", 0],
    ["0.25", 0.25],
    ["1e-3", 0.001],
    ["1", 1],
  ])("reads %s", (text, value) => {
    expect(decimal(0, 1)(text)).toBe(value);
  });

  it.each(["", " ", "1.01", "-0.1", "NaN", "Infinity", "half"])("refuses %j", (text) => {
    expect(() => decimal(0, 1)(text)).toThrow(InvalidArgumentError);
  });
});

describe("bytes", () => {
  it("reads sizes", () => {
    expect(bytes("1.5KiB")).toBe(1536);
  });

  it("refuses anything else, with examples", () => {
    expect(() => bytes("lots")).toThrow(InvalidArgumentError);
    expect(() => bytes("lots")).toThrow("4GiB");
  });
});

describe("tokenIds", () => {
  it("reads a list", () => {
    expect(tokenIds("1, 2,4294967295")).toEqual([1, 2, 4294967295]);
  });

  it.each(["", "1,", "1;2", "-1", "1.5", "4294967296", "a"])("refuses %j", (text) => {
    expect(() => tokenIds(text)).toThrow(InvalidArgumentError);
  });
});

describe("collect", () => {
  it("keeps every use in order", () => {
    expect(collect("b", collect("a", undefined))).toEqual(["a", "b"]);
  });
});
