import { join } from "node:path";
import { readJsonFile, readTextFile } from "../checkpoint/json-file.js";
import { LayerstreamError } from "../errors.js";
import { type JinjaProgram, parseJinja, renderJinja, TemplateRefusal } from "./jinja.js";

/** Some ten times the largest that are published. */
const MAX_TEMPLATE_BYTES = 256 * 1024;
const CODE = "CHAT_TEMPLATE_INVALID";

export interface RenderOptions {
  /** End with the opening of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** Descriptions of functions, as the model's template expects them. */
  tools?: readonly object[];
  /** Further variables, such as `date_string` or `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
}

/** Turns a conversation into the text that the model was trained on. */
export class ChatTemplate {
  private readonly programs = new Map<string, JinjaProgram>();

  /**
   * @param sources Jinja text by name; a checkpoint with one template calls it "default".
   * @param specialTokens for example `{ bos_token: "<s>" }`; templates write these themselves.
   * @param file named in errors.
   */
  constructor(
    private readonly sources: ReadonlyMap<string, string>,
    private readonly specialTokens: Readonly<Record<string, string>>,
    private readonly file: string,
  ) {}

  /**
   * @param messages each with `role` and `content`, and what else the template reads.
   * @throws CHAT_TEMPLATE_INVALID with the template's own message if it refuses the conversation, and if it is damaged
   * or endless; INVALID_ARGUMENT if `messages` is not a non-empty list of objects.
   */
  render(messages: readonly object[], options: RenderOptions = {}): string {
    checkMessages(messages);
    const program = this.program(options.tools);
    try {
      return renderJinja(program, {
        ...this.specialTokens,
        messages,
        tools: options.tools ?? null,
        documents: null,
        add_generation_prompt: options.addGenerationPrompt ?? true,
        ...options.variables,
      });
    } catch (error) {
      throw this.failure(error);
    }
  }

  /** True if the text of one of the templates has `text` in it. */
  mentions(text: string): boolean {
    return [...this.sources.values()].some((source) => source.includes(text));
  }

  private program(tools: readonly object[] | undefined): JinjaProgram {
    const name = tools && this.sources.has("tool_use") ? "tool_use" : "default";
    const source = this.sources.get(name);
    if (source === undefined) {
      const names = [...this.sources.keys()].join(", ");
      throw new LayerstreamError(CODE, `${this.file} has no chat template named "default", only: ${names}.`, {
        file: this.file,
        remedy: "Name one of them default.",
      });
    }
    let program = this.programs.get(name);
    if (program === undefined) {
      try {
        program = parseJinja(source);
      } catch (error) {
        throw this.failure(error);
      }
      this.programs.set(name, program);
    }
    return program;
  }

  private failure(cause: unknown): LayerstreamError {
    const message = cause instanceof Error ? cause.message : String(cause);
    return cause instanceof TemplateRefusal
      ? new LayerstreamError(CODE, `The model's chat template refuses this conversation: ${message}.`, {
          file: this.file,
          remedy: "Change the roles or the order of the messages.",
          cause,
        })
      : new LayerstreamError(CODE, `The chat template of ${this.file} failed: ${message}.`, {
          file: this.file,
          remedy: "Use a prompt without a chat template, or repair the template.",
          cause,
        });
  }
}

/**
 * The chat template of a checkpoint or store: chat_template.jinja, or `chat_template` of tokenizer_config.json (a
 * string, or a list of named templates), or chat_template.json. Undefined if it has none.
 * @throws CHAT_TEMPLATE_INVALID if what is there cannot be a template; UNSAFE_PATH, IO_ERROR
 */
export async function readChatTemplate(
  directory: string,
  tokenizerConfig: Readonly<Record<string, unknown>>,
  specialTokens: Readonly<Record<string, string>>,
): Promise<ChatTemplate | undefined> {
  const limits = { code: CODE, maxBytes: MAX_TEMPLATE_BYTES } as const;
  const text = await readTextFile(directory, "chat_template.jinja", limits);
  if (text !== undefined) {
    return new ChatTemplate(new Map([["default", text]]), specialTokens, join(directory, "chat_template.jinja"));
  }
  if ((tokenizerConfig.chat_template ?? undefined) !== undefined) {
    const file = join(directory, "tokenizer_config.json");
    return new ChatTemplate(readSources(tokenizerConfig.chat_template, file), specialTokens, file);
  }
  const json = await readJsonFile(directory, "chat_template.json", limits);
  if ((json?.chat_template ?? undefined) === undefined) return undefined;
  const file = join(directory, "chat_template.json");
  return new ChatTemplate(readSources(json?.chat_template, file), specialTokens, file);
}

function readSources(value: unknown, file: string): Map<string, string> {
  const entries: readonly unknown[] = Array.isArray(value) ? value : [{ name: "default", template: value }];
  const sources = new Map<string, string>();
  for (const entry of entries) {
    const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown };
    if (typeof name !== "string" || typeof template !== "string" || template.length > MAX_TEMPLATE_BYTES) {
      throw new LayerstreamError(CODE, `${file}: chat_template is neither text nor a list of named templates.`, {
        file,
        remedy: "Download the file again.",
      });
    }
    sources.set(name, template);
  }
  return sources;
}

function checkMessages(messages: unknown): void {
  const valid = Array.isArray(messages) && messages.length > 0 && messages.every((m) => typeof m === "object" && m);
  if (!valid) {
    throw new LayerstreamError("INVALID_ARGUMENT", "messages is not a list of at least one chat message.", {
      remedy: 'Give [{ role: "user", content: "..." }].',
    });
  }
}
