import { type AddedToken, AddedTokens } from "./added-tokens.js";
import { joinSymbols } from "./byte-pair-encoding.js";
import type { TextCodec } from "./text-codec.js";

export interface TiktokenSettings {
  /** Matches the words that are encoded on their own; everything must match. */
  pattern: RegExp;
  addedTokens: readonly AddedToken[];
  /** Ids that `encode` puts before, if asked for special tokens. */
  prefix: readonly number[];
  normalizesNfc: boolean;
}

const LINE = /^([A-Za-z0-9+/]+={0,2}) (\d{1,8})$/;

/**
 * Ranks of a tiktoken vocabulary: lines of a token's bytes in base64, a space, and its rank, which is its id. Tokens
 * are strings of one character a byte.
 * @throws Error for lines of another form, and for tokens and ranks that come twice.
 */
export function parseTiktokenRanks(text: string): Map<string, number> {
  const ranks = new Map<string, number>();
  const used = new Set<number>();
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const match = LINE.exec(line.trim());
    if (match === null) throw new Error(`line ${index + 1} is not a token in base64 and its rank`);
    const token = Buffer.from(match[1] as string, "base64").toString("latin1");
    const rank = Number(match[2]);
    if (ranks.has(token) || used.has(rank))
      throw new Error(`line ${index + 1} has a token or a rank for the second time`);
    ranks.set(token, rank);
    used.add(rank);
  }
  if (ranks.size === 0) throw new Error("it has no tokens");
  return ranks;
}

/**
 * Byte pair encoding as tiktoken does it: of the bytes of each word the pair is joined first whose joined token has the
 * lowest rank.
 */
export class TiktokenCodec implements TextCodec {
  readonly specialIds: ReadonlySet<number>;
  readonly cleansUpSpaces = false;
  private readonly added: AddedTokens;
  private readonly addedNames = new Map<number, string>();
  private readonly ids = new Map<string, number>();
  private readonly tokens = new Map<number, string>();

  /** @throws Error if one of the 256 bytes is not a token. */
  constructor(
    private readonly ranks: ReadonlyMap<string, number>,
    private readonly settings: TiktokenSettings,
  ) {
    for (let byte = 0; byte < 256; byte++) {
      if (!ranks.has(String.fromCharCode(byte))) throw new Error(`the byte ${byte} is not a token`);
    }
    for (const [token, rank] of ranks) this.tokens.set(rank, token);
    const special = new Set<number>();
    for (const { content, ids, special: isSpecial } of settings.addedTokens) {
      const [id] = ids;
      if (ids.length !== 1 || id === undefined) continue;
      this.ids.set(content, id);
      this.addedNames.set(id, content);
      if (isSpecial) special.add(id);
    }
    this.specialIds = special;
    this.added = new AddedTokens(settings.addedTokens);
  }

  encode(text: string, addSpecialTokens: boolean): number[] {
    const ids = addSpecialTokens ? [...this.settings.prefix] : [];
    for (const part of this.added.split(text)) {
      if (typeof part !== "string") {
        ids.push(...part.ids);
        continue;
      }
      const normalized = this.settings.normalizesNfc ? part.normalize("NFC") : part;
      for (const [word] of normalized.matchAll(this.settings.pattern)) this.encodeWord(word, ids);
    }
    return ids;
  }

  decode(ids: readonly number[]): string {
    let bytes = "";
    for (const id of ids) {
      const name = this.addedNames.get(id);
      bytes += name === undefined ? (this.tokens.get(id) ?? "") : Buffer.from(name).toString("latin1");
    }
    return utf8.decode(Buffer.from(bytes, "latin1"));
  }

  tokenOf(id: number): string | undefined {
    return this.addedNames.get(id) ?? this.tokens.get(id);
  }

  /** Added tokens by their text; others by their bytes, one character each. */
  idOf(token: string): number | undefined {
    return this.ids.get(token) ?? this.ranks.get(token);
  }

  private encodeWord(word: string, ids: number[]): void {
    const bytes = Buffer.from(word).toString("latin1");
    const whole = this.ranks.get(bytes);
    if (whole !== undefined) {
      ids.push(whole);
      return;
    }
    const everyByte = Array.from({ length: bytes.length }, (_, at) => at);
    const starts = joinSymbols(bytes, everyByte, (text, start, _, end) => this.ranks.get(text.slice(start, end)));
    for (const [index, start] of starts.entries()) {
      ids.push(this.ranks.get(bytes.slice(start, starts[index + 1] ?? bytes.length)) as number);
    }
  }
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
