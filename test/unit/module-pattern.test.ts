import { describe, expect, it } from "vitest";
import { LayerstreamError } from "../../dist/errors.js";
import { compileModulePattern } from "../../dist/quant/methods/module-pattern.js";
import { isListed } from "../../dist/quant/methods/settings.js";

const NAMES = [
  "",
  "lm_head",
  "model.layers.0.self_attn.q_proj",
  "model.layers.10.self_attn.k_proj",
  "model.layers.18.mlp.gate_proj",
  "model.layers.18.mlp.experts.3.down_proj",
  "visual.blocks.1.attn.qkv",
];

describe("patterns of module names", () => {
  it.each([
    "lm_head",
    ".*",
    ".*q_proj",
    ".*\\.layers\\.1[08]\\.",
    ".*\\.layers\\.(0|1|2)\\.",
    "^model\\.layers\\.\\d+\\.mlp\\.(?:gate|up)_proj$",
    ".*self_attn\\.[qk]_proj$",
    "model\\.layers\\.[0-9]+\\..*_proj",
    "(.*lm_head|visual).*",
    "[^m].*",
    "(a*)*b?.*head",
    "mod(el)?\\.layers",
    ".*experts\\.\\d\\.",
    "\\w+\\.blocks|.*\\.mlp$",
    "$",
    "()",
    ".*?mlp",
    "a|",
    "[]]",
    "[a-]",
    ".*[.]mlp[.]",
  ])("%s matches what it matches elsewhere", (pattern) => {
    const matches = compileModulePattern(pattern, "config.json");
    // The two differ in an empty class alone.
    const known = pattern === "[]]" ? /^[\]]/ : new RegExp(`^(?:${pattern})`);
    for (const name of NAMES) expect(matches(name), name).toBe(known.test(name));
  });

  it("takes no longer for patterns that make others backtrack", () => {
    const name = "a".repeat(5000);
    for (const pattern of [
      "(a*)*b",
      "(a|a)*b",
      "(a+)+$b",
      ".*.*.*.*.*.*.*.*b",
      `${"a?".repeat(200)}${"a".repeat(200)}b`,
    ]) {
      expect(compileModulePattern(pattern, "config.json")(name), pattern).toBe(false);
    }
  });

  it.each(["(", ")", "a)", "[a", "\\", "*a", "a**", "a{2}", "(?=a)", "(?<!a)", "(?P<n>a)", "\\1", "\\b", "[", "("])(
    "%s is refused",
    (pattern) => {
      const compile = () => compileModulePattern(pattern, "dir/config.json");
      expect(compile).toThrow(LayerstreamError);
      expect(compile).toThrow(expect.objectContaining({ code: "UNSUPPORTED_MODEL", file: "dir/config.json" }));
    },
  );

  it("refuses patterns that are too long or nested too deep", () => {
    expect(() => compileModulePattern("a".repeat(1001), "f")).toThrow(/1000 characters/);
    expect(() => compileModulePattern("(".repeat(400) + ")".repeat(400), "f")).toThrow(/too deep/);
  });
});

it("lists name modules, or runs of whole parts of their names", () => {
  const list = ["lm_head", "mlp.gate", "model.layers.1.self_attn"];
  for (const name of ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.self_attn.q_proj"]) {
    expect(isListed(name, list), name).toBe(true);
  }
  for (const name of ["model.layers.0.mlp.gate_proj", "model.layers.11.self_attn.q_proj", "lm_header"]) {
    expect(isListed(name, list), name).toBe(false);
  }
  expect(isListed("lm_head", null)).toBe(false);
});
