import path from "node:path";
import { describe, expect, it } from "vitest";
import { promptOperations } from "../../dist/models/operations.js";
import { architectureOf } from "../../dist/models/registry.js";
import { fixtureCases, readConfig } from "../helpers/golden.js";

const operations = (name: string, tokens: number) =>
  promptOperations(architectureOf(readConfig(path.join(fixtureCases, name)), name), tokens);

describe("promptOperations", () => {
  it("counts each weight twice a token, those of the head once a prompt, and of experts those that are chosen", () => {
    const [one, two, three] = [1, 2, 3].map((tokens) => operations("llama_tied", tokens).linear) as [
      number,
      number,
      number,
    ];
    expect(three - two).toBe(two - one);
    const config = readConfig(path.join(fixtureCases, "llama_tied")) as Record<string, number>;
    expect(one - (two - one)).toBe(2 * (config.hidden_size as number) * (config.vocab_size as number));
  });

  it("counts attention with the square of the tokens, within a window in proportion to them", () => {
    const whole = [1, 2, 3].map((tokens) => operations("llama_tied", tokens).attention);
    expect((whole[1] as number) / (whole[0] as number)).toBe(3);
    expect((whole[2] as number) / (whole[0] as number)).toBe(6);
    const far = [1000, 1001, 1002].map((tokens) => operations("mistral_swa", tokens).attention) as [
      number,
      number,
      number,
    ];
    expect(far[2] - far[1]).toBe(far[1] - far[0]);
  });
});
