import { describe, expect, it } from "vitest";
import { ChatSession } from "../../dist/cli/chat-session.js";
import type { GeneratedToken, GenerateOptions, Model, Prompt } from "../../dist/engine/contract.js";

/** A model that answers with what `reply` yields, and notes every prompt. */
function fakeModel(reply: (options: GenerateOptions) => AsyncGenerator<GeneratedToken>) {
  const prompts: Prompt[] = [];
  const generate = (prompt: Prompt, options: GenerateOptions) => {
    prompts.push(prompt);
    return Object.assign(reply(options), { finishReason: "eos", promptTokens: 5 });
  };
  return { prompts, model: { generate } as unknown as Model };
}

async function* sayHi(): AsyncGenerator<GeneratedToken> {
  yield { text: "H", token: 1 };
  yield { text: "i", token: 2 };
}

describe("ChatSession", () => {
  it("hands the whole conversation to the model, and forgets it on reset", async () => {
    const { model, prompts } = fakeModel(sayHi);
    const session = new ChatSession(model, { system: "Be brief." });
    const pieces: string[] = [];
    const turn = await session.answer("one", (text) => pieces.push(text));
    expect(turn).toEqual({ text: "Hi", tokens: 2, promptTokens: 5, finishReason: "eos" });
    expect(pieces).toEqual(["H", "i"]);
    await session.answer("two", () => {});
    session.reset();
    await session.answer("three", () => {});
    expect(prompts).toEqual([
      [
        { role: "system", content: "Be brief." },
        { role: "user", content: "one" },
      ],
      [
        { role: "system", content: "Be brief." },
        { role: "user", content: "one" },
        { role: "assistant", content: "Hi" },
        { role: "user", content: "two" },
      ],
      [
        { role: "system", content: "Be brief." },
        { role: "user", content: "three" },
      ],
    ]);
  });

  it("leaves the conversation as it was when a turn fails", async () => {
    let fail = true;
    const { model, prompts } = fakeModel(async function* () {
      if (fail) throw new Error("too long");
      yield { text: "Hi", token: 1 };
    });
    const session = new ChatSession(model, {});
    await expect(session.answer("one", () => {})).rejects.toThrow("too long");
    fail = false;
    await session.answer("two", () => {});
    expect(prompts[1]).toEqual([{ role: "user", content: "two" }]);
  });

  it("stops a running answer once, and keeps what was said", async () => {
    const { model, prompts } = fakeModel(async function* ({ signal }) {
      yield { text: "a", token: 1 };
      signal?.throwIfAborted();
      yield { text: "b", token: 2 };
    });
    const session = new ChatSession(model, {});
    expect(session.stopAnswer()).toBe(false);
    const stops: boolean[] = [];
    const turn = await session.answer("one", () => stops.push(session.stopAnswer(), session.stopAnswer()));
    expect(stops).toEqual([true, false]);
    expect(turn.text).toBe("a");
    expect(session.stopAnswer()).toBe(false);
    await session.answer("two", () => {});
    expect(prompts[1]).toContainEqual({ role: "assistant", content: "a" });
  });
});
