import { describe, expect, it } from "vitest";
import { JsonError, parseStrictJson } from "../../dist/checkpoint/strict-json.js";

const parse = (text: string, depth = 8) => parseStrictJson(Buffer.from(text), depth);

describe("parseStrictJson", () => {
  it.each([
    '{"a": {"a": 1}, "b": ["a", "a"], "c": "a"}',
    '[{"a": 1}, {"a": 2}]',
    '{"a\\"": 1, "a": "x:\\\\", "\\u0062": "{[", "c": ""}',
    '"text"',
    " [] ",
  ])("reads %s as JSON.parse does", (text) => {
    expect(parse(text)).toEqual(JSON.parse(text));
  });

  it.each([
    ['{"a": 1, "a": 1}', "twice"],
    ['{"a": 1, "\\u0061": 1}', "twice"],
    ['[1, {"b": {"x": 1, "y": 2, "x" \n : 3}}]', "twice"],
    ["[[[[[[[[[]]]]]]]]]", "nested more than 8"],
    ["[".repeat(5_000_000), "nested more than 8"],
    ['{"a": 1', "not valid JSON"],
    ['{"a', "not valid JSON"],
    ['{"\\x": 1}', "not valid JSON"],
    ["{'a': 1}", "not valid JSON"],
    ["", "not valid JSON"],
    ["\ufeff{}", "not valid JSON"],
    ["NaN", "not valid JSON"],
  ])("refuses %.30s", (text, reason) => {
    expect(() => parse(text)).toThrow(JsonError);
    expect(() => parse(text)).toThrow(reason);
  });

  it("refuses invalid UTF-8", () => {
    expect(() => parseStrictJson(Buffer.from([0x22, 0xff, 0x22]), 8)).toThrow("not valid UTF-8");
  });
});
