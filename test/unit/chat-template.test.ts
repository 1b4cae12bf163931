import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { strftime } from "../../dist/chat/strftime.js";
import { ChatTemplate, readChatTemplate } from "../../dist/chat/template.js";
import { LayerstreamError } from "../../dist/errors.js";

interface Fixture {
  templates: Record<string, { template: string; bos_token: string | null; eos_token: string | null }>;
  conversations: { name: string; messages: object[]; tools?: object[]; kwargs?: Record<string, unknown> }[];
  expected: { template: string; conversation: string; add_generation_prompt: boolean; text?: string; error?: string }[];
}

const fixture = JSON.parse(
  readFileSync(path.resolve(import.meta.dirname, "../fixtures/chat/templates.json"), "utf8"),
) as Fixture;
const root = mkdtempSync(path.join(tmpdir(), "chat-template-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const user = [{ role: "user", content: "hello" }];

function template(source: string, specialTokens: Record<string, string> = {}): ChatTemplate {
  return new ChatTemplate(new Map([["default", source]]), specialTokens, "dir/tokenizer_config.json");
}

function errorOf(action: () => unknown): LayerstreamError {
  try {
    action();
  } catch (error) {
    if (error instanceof LayerstreamError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("templates of published shapes", () => {
  it.each(fixture.expected)("$template, $conversation, prompt $add_generation_prompt: as transformers", (row) => {
    const source = fixture.templates[row.template];
    const conversation = fixture.conversations.find((candidate) => candidate.name === row.conversation);
    if (source === undefined || conversation === undefined) throw new Error("damaged fixture");
    const { bos_token, eos_token } = source;
    const tokens = Object.fromEntries(
      Object.entries({ bos_token, eos_token }).filter((entry): entry is [string, string] => entry[1] !== null),
    );
    const render = () =>
      template(source.template, tokens).render(conversation.messages, {
        addGenerationPrompt: row.add_generation_prompt,
        tools: conversation.tools,
        variables: conversation.kwargs,
      });
    if (row.error === undefined) {
      expect(render()).toBe(row.text);
    } else {
      const error = errorOf(render);
      expect(error.code).toBe("CHAT_TEMPLATE_INVALID");
      expect(error.message).toContain(row.error);
    }
  });
});

describe("what a template may not do", () => {
  const longSum = Array(60).fill("1").join("+");
  it.each([
    ["endless", `{% for i in range(100000) %}{{ ${longSum} }}{% endfor %}`, "endless"],
    ["endless by empty loops", `${"{% for i in range(1000) %}".repeat(3)}${"{% endfor %}".repeat(3)}`, "endless"],
    [
      "endless by loops that end at once",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% break %}{% endfor %}{% endfor %}",
      "endless",
    ],
    [
      "endless by macros",
      "{% macro a() %}{{ 1 }}{% endmacro %}" +
        Array.from(
          { length: 25 },
          (_, i) =>
            `{% macro ${"a".repeat(i + 2)}() %}{{ ${"a".repeat(i + 1)}() }}{{ ${"a".repeat(i + 1)}() }}{% endmacro %}`,
        ).join("") +
        `{{ ${"a".repeat(26)}() }}`,
      "endless",
    ],
    [
      "lists that hold one another",
      "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
      "endless",
    ],
    ["what holds itself", "{% set n = namespace() %}{% set n.a = n %}{{ n | tojson }}", "endless"],
    ["sorting for ever", "{% for i in range(100000) %}{% set x = range(100000) | sort %}{% endfor %}", "endless"],
    ["a page of white space", " ".repeat(200_000), "white space"],
    ["a huge range", "{{ range(10000000000) | length }}", "range()"],
    ["a range of fractions", "{{ range(1.5) | length }}", "range()"],
    [
      "doubling text",
      "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "longer",
    ],
    ["deep nesting", `{{ ${"(".repeat(50000)}1${")".repeat(50000)} }}`, "stack"],
    ["no syntax", "{% if %}", "failed"],
    ["no end", "{{ 1", "failed"],
  ])("%s is refused with the template's file", (_, source, words) => {
    const error = errorOf(() => template(source).render(user));
    expect(error.code).toBe("CHAT_TEMPLATE_INVALID");
    expect(error.message).toContain(words);
    expect(error.message).toContain("dir/tokenizer_config.json");
    expect(error.remedy).toBeTruthy();
  });

  it.each([[[]], ["text"], [undefined], [[null]], [["text"]]])("messages that are %j are refused", (messages) => {
    expect(errorOf(() => template("x").render(messages as unknown as object[])).code).toBe("INVALID_ARGUMENT");
  });
});

describe("what a template may do", () => {
  it.each(Object.keys(fixture.templates))("%s takes a conversation of 1000 messages", (name) => {
    const source = fixture.templates[name]?.template ?? "";
    const messages = Array.from({ length: 1001 }, (_, i) => ({
      role: i % 2 ? "assistant" : "user",
      content: `message ${i} `.repeat(20),
    }));
    expect(template(source, { bos_token: "<s>", eos_token: "</s>" }).render(messages)).toContain("message 1000");
  });
});

describe("variables", () => {
  it("are the special tokens, the messages, and those that the caller adds", () => {
    const source =
      "{{ bos_token }}|{{ messages[0].role }}|{{ tools is none }}|{{ add_generation_prompt }}|{{ thinking }}";
    const rendered = template(source, { bos_token: "<s>" }).render(user, { variables: { thinking: "no" } });
    expect(rendered).toBe("<s>|user|true|true|no");
  });

  it("give the date in English, as Python does in the C locale", () => {
    const date = new Date(2024, 6, 6, 15, 4, 5);
    expect(strftime("%d %b %Y, %A %B %a %y-%m %H:%M:%S %I %p 100%% %q", date)).toBe(
      "06 Jul 2024, Saturday July Sat 24-07 15:04:05 03 PM 100% %q",
    );
    expect(template("{{ strftime_now('%Y') }}").render(user)).toMatch(/^20\d\d$/);
  });
});

describe("where a template comes from", () => {
  let count = 0;
  const read = (files: Record<string, string>, config: Record<string, unknown> = {}) => {
    const directory = path.join(root, String(count++));
    mkdirSync(directory);
    for (const [name, text] of Object.entries(files)) writeFileSync(path.join(directory, name), text);
    return readChatTemplate(directory, config, {});
  };

  it("is chat_template.jinja, then tokenizer_config.json, then chat_template.json", async () => {
    const json = { "chat_template.json": JSON.stringify({ chat_template: "from json" }) };
    const jinja = { "chat_template.jinja": "from jinja" };
    expect(await read({})).toBeUndefined();
    expect((await read(json))?.render(user)).toBe("from json");
    expect((await read(json, { chat_template: "from config" }))?.render(user)).toBe("from config");
    expect((await read({ ...json, ...jinja }, { chat_template: "from config" }))?.render(user)).toBe("from jinja");
  });

  it("may be a list of named templates", async () => {
    const named = [
      { name: "default", template: "plain" },
      { name: "tool_use", template: "with tools" },
    ];
    const found = await read({}, { chat_template: named });
    expect(found?.render(user)).toBe("plain");
    expect(found?.render(user, { tools: [{}] })).toBe("with tools");
    const other = await read({}, { chat_template: [{ name: "rag", template: "x" }] });
    expect(errorOf(() => other?.render(user)).message).toContain("rag");
  });

  it.each([
    [{ chat_template: 4 }, {}],
    [{ chat_template: [{ name: "default" }] }, {}],
    [{ chat_template: [null] }, {}],
    [{ chat_template: "x".repeat(2 ** 20 + 1) }, {}],
    [{}, { "chat_template.json": "{" }],
    [{}, { "chat_template.json": "[]" }],
    [{}, { "chat_template.jinja": "x".repeat(2 ** 20 + 1) }],
  ])("must be text of a sane size (%#)", async (config, files) => {
    await expect(read(files, config)).rejects.toMatchObject({ code: "CHAT_TEMPLATE_INVALID" });
  });
});
