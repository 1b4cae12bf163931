import type { ChatMessage, FinishReason, Model, Stats } from "../engine/contract.js";
import { generateOptions, type SamplingChoices } from "./sampling-options.js";

export interface Turn {
  text: string;
  /** Tokens of the answer. */
  tokens: number;
  /** Tokens of the whole conversation before the answer. */
  promptTokens: number | undefined;
  finishReason: FinishReason | undefined;
}

/** A conversation: keeps the messages, and hands the whole of it to the model each turn. */
export class ChatSession {
  readonly #model: Model;
  readonly #choices: SamplingChoices & { system?: string };
  #messages: ChatMessage[] = [];
  #answering: AbortController | undefined;

  constructor(model: Model, choices: SamplingChoices & { system?: string }) {
    this.#model = model;
    this.#choices = choices;
    this.reset();
  }

  /** Forgets everything but the system message. */
  reset(): void {
    const { system } = this.#choices;
    this.#messages = system === undefined ? [] : [{ role: "system", content: system }];
  }

  stats(): Stats {
    return this.#model.stats();
  }

  /** Ends the running answer after what it has said so far; false if there is none. */
  stopAnswer(): boolean {
    if (!this.#answering || this.#answering.signal.aborted) return false;
    this.#answering.abort();
    return true;
  }

  /** Adds the user's message and the answer to the conversation; a failed turn leaves it as it was. */
  async answer(message: string, onText: (text: string) => void): Promise<Turn> {
    const answering = new AbortController();
    this.#answering = answering;
    const asked = [...this.#messages, { role: "user", content: message }];
    const generation = this.#model.generate(asked, generateOptions(this.#choices, answering.signal));
    let text = "";
    let tokens = 0;
    try {
      for await (const piece of generation) {
        text += piece.text;
        tokens++;
        onText(piece.text);
      }
    } catch (error) {
      // A stopped answer counts, as far as it came.
      if (!answering.signal.aborted) throw error;
    } finally {
      this.#answering = undefined;
    }
    this.#messages = [...asked, { role: "assistant", content: text }];
    return { text, tokens, promptTokens: generation.promptTokens, finishReason: generation.finishReason };
  }
}
