/**
 * Pickles of tensors (Python's pickletools documents the opcodes). An interpreter of the few opcodes that torch.save
 * writes: it builds plain data and can call nothing, whatever the file says. Names other than those of
 * `torch-globals.ts`, and opcodes that make objects of classes, are refused where they stand.
 */
import type { LayerstreamError } from "../../errors.js";
import { PickleReader } from "./pickle-reader.js";
import { type Dict, isKind, type PickleValue } from "./pickle-values.js";
import { callGlobal, isAllowedGlobal, loadStorage, ValueError } from "./torch-globals.js";

/** A tensor takes about 30. */
const MAX_OPERATIONS = 4_000_000;
/** Containers, strings and other values that take memory. */
const MAX_VALUES = 1_000_000;
const MAX_STACK = 1_000_000;
const MAX_DEPTH = 64;
const MAX_PROTOCOL = 5;

/** Opcodes that would make objects, by the names of pickletools. */
const REFUSED: Readonly<Record<string, string>> = {
  "\x81": "NEWOBJ",
  "\x92": "NEWOBJ_EX",
  o: "OBJ",
  i: "INST",
  P: "PERSID",
  "\x82": "EXT1",
  "\x83": "EXT2",
  "\x84": "EXT4",
  "\x96": "BYTEARRAY8",
  "\x97": "NEXT_BUFFER",
};

export interface Unpickled {
  value: PickleValue;
  /** Where the pickle ends. */
  end: number;
}

/**
 * Reads the pickle that begins at `start`. `file` and `base`, the offset of `bytes` in it, are named in errors.
 * @throws PICKLE_REFUSED for names and opcodes that tensors do not need; PICKLE_INVALID; PickleTooShort
 */
export function unpickle(bytes: Buffer, start: number, file: string, base = 0): Unpickled {
  return new Unpickler(new PickleReader(bytes, start, file, base)).run();
}

class Unpickler {
  #stack: PickleValue[] = [];
  /** Length of the stack at each open mark. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #values = 0;
  readonly #in: PickleReader;
  /** By opcode. */
  readonly #operations: Readonly<Record<string, () => void>> = {
    "\x80": () => this.#checkProtocol(this.#in.byte()),
    "\x95": () => void this.#in.take(8),
    "(": () => this.#mark(),
    N: () => this.#push(null),
    "\x88": () => this.#push(true),
    "\x89": () => this.#push(false),
    K: () => this.#push(this.#in.byte()),
    M: () => this.#push(this.#in.take(2).readUInt16LE(0)),
    J: () => this.#push(this.#in.take(4).readInt32LE(0)),
    "\x8a": () => this.#push(this.#in.integer(this.#in.byte())),
    G: () => this.#push(this.#in.take(8).readDoubleBE(0)),
    X: () => this.#pushNew(this.#in.string(this.#in.word(), "utf8")),
    "\x8c": () => this.#pushNew(this.#in.string(this.#in.byte(), "utf8")),
    T: () => this.#pushNew(this.#in.string(this.#in.word(), "latin1")),
    U: () => this.#pushNew(this.#in.string(this.#in.byte(), "latin1")),
    ")": () => this.#pushTuple([]),
    "\x85": () => this.#pushTuple(this.#popMany(1)),
    "\x86": () => this.#pushTuple(this.#popMany(2)),
    "\x87": () => this.#pushTuple(this.#popMany(3)),
    t: () => this.#pushTuple(this.#popToMark()),
    "]": () => this.#pushNew({ kind: "list", items: [], depth: 1 }),
    a: () => this.#append(this.#popMany(1)),
    e: () => this.#append(this.#popToMark()),
    "}": () => this.#pushNew({ kind: "dict", entries: [], depth: 1 }),
    s: () => this.#setItems(this.#popMany(2)),
    u: () => this.#setItems(this.#popToMark()),
    q: () => this.#remember(this.#in.byte()),
    r: () => this.#remember(this.#in.word()),
    "\x94": () => this.#remember(this.#memo.size),
    h: () => this.#recall(this.#in.byte()),
    j: () => this.#recall(this.#in.word()),
    c: () => this.#pushGlobal(this.#in.line(), this.#in.line()),
    "\x93": () => this.#pushStackGlobal(),
    Q: () => this.#pushNew(loadStorage(this.#pop())),
    R: () => this.#reduce(),
    b: () => this.#build(),
  };

  constructor(reader: PickleReader) {
    this.#in = reader;
  }

  run(): Unpickled {
    for (let operations = 0; operations < MAX_OPERATIONS; operations++) {
      const opcode = this.#in.opcode();
      if (opcode === ".") return { value: this.#pop(), end: this.#in.at };
      const operation = this.#operations[opcode];
      if (!operation) throw this.#refuse(opcode);
      try {
        operation();
      } catch (error) {
        if (error instanceof ValueError) throw this.#in.invalid(error.message);
        throw error;
      }
    }
    throw this.#in.invalid(`takes more than ${MAX_OPERATIONS} operations`);
  }

  #mark(): void {
    if (this.#marks.length >= MAX_STACK) throw this.#in.invalid(`has more than ${MAX_STACK} open marks`);
    this.#marks.push(this.#stack.length);
  }

  #checkProtocol(protocol: number): void {
    if (protocol > MAX_PROTOCOL) throw this.#in.invalid(`is a pickle of protocol ${protocol}`);
  }

  #pushStackGlobal(): void {
    const [module, name] = this.#popMany(2);
    if (typeof module !== "string" || typeof name !== "string")
      throw this.#in.invalid("has a name that is not a string");
    this.#pushGlobal(module, name);
  }

  #pushGlobal(module: string, name: string): void {
    const global = `${module}.${name}`;
    if (!isAllowedGlobal(global)) {
      throw this.#in.refused(`asks for ${printable(global)}, which tensors do not need`);
    }
    this.#pushNew({ kind: "global", name: global });
  }

  #reduce(): void {
    const [callee, args] = this.#popMany(2);
    if (!isKind(callee, "global") || !isKind(args, "tuple"))
      throw this.#in.invalid("calls something that is not a name");
    this.#pushNew(callGlobal(callee, args));
  }

  /** State dictionaries carry `_metadata` as an attribute, tensors those that a user gave them: nobody needs them. */
  #build(): void {
    const [target] = this.#popMany(2);
    if (!isKind(target, "dict") && !isKind(target, "tensor")) {
      throw this.#in.refused("sets the state of something that is neither a dictionary nor a tensor (BUILD)");
    }
    this.#push(target);
  }

  #append(items: readonly PickleValue[]): void {
    const list = this.#stack.at(-1);
    if (!isKind(list, "list")) throw this.#in.invalid("appends to something that is not a list");
    for (const item of items) list.items.push(item);
    list.depth = Math.max(list.depth, this.#depthAround(items));
  }

  #setItems(items: readonly PickleValue[]): void {
    const dict: PickleValue | undefined = this.#stack.at(-1);
    if (!isKind(dict, "dict")) throw this.#in.invalid("sets items of something that is not a dictionary");
    if (items.length % 2 !== 0) throw this.#in.invalid("has a key without a value");
    for (const item of items) dict.entries.push(item);
    dict.depth = Math.max(dict.depth, this.#depthAround(items));
  }

  #pushTuple(items: readonly PickleValue[]): void {
    this.#pushNew({ kind: "tuple", items, depth: this.#depthAround(items) });
  }

  #depthAround(items: readonly PickleValue[]): number {
    let depth = 1;
    for (const item of items) {
      if (typeof item === "object" && item !== null && "depth" in item) depth = Math.max(depth, item.depth + 1);
    }
    if (depth > MAX_DEPTH) throw this.#in.invalid(`nests containers more than ${MAX_DEPTH} deep`);
    return depth;
  }

  #remember(index: number): void {
    if (this.#memo.size >= MAX_VALUES) throw this.#in.invalid(`remembers more than ${MAX_VALUES} values`);
    const top = this.#stack.at(-1);
    if (top === undefined || this.#stack.length === this.#marks.at(-1)) throw this.#in.invalid("remembers nothing");
    this.#memo.set(index, top);
  }

  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw this.#in.invalid(`recalls value ${index}, which it has not remembered`);
    this.#push(value);
  }

  #pushNew(value: PickleValue): void {
    if (++this.#values > MAX_VALUES) throw this.#in.invalid(`has more than ${MAX_VALUES} values`);
    this.#push(value);
  }

  #push(value: PickleValue): void {
    if (this.#stack.length >= MAX_STACK) throw this.#in.invalid(`has more than ${MAX_STACK} values on its stack`);
    this.#stack.push(value);
  }

  #pop(): PickleValue {
    return this.#popMany(1)[0] as PickleValue;
  }

  #popMany(count: number): PickleValue[] {
    const floor = this.#marks.at(-1) ?? 0;
    if (this.#stack.length - floor < count) throw this.#in.invalid("takes more from its stack than is there");
    return this.#stack.splice(this.#stack.length - count);
  }

  #popToMark(): PickleValue[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#in.invalid("returns to a mark that is not there");
    return this.#stack.splice(mark);
  }

  #refuse(opcode: string): LayerstreamError {
    const code = `0x${opcode.charCodeAt(0).toString(16).padStart(2, "0")}`;
    const name = REFUSED[opcode];
    if (!name) return this.#in.invalid(`has the opcode ${code}, which PyTorch does not write`);
    const global = opcode === "i" ? ` of ${printable(`${this.#in.line()}.${this.#in.line()}`)}` : "";
    return this.#in.refused(`makes an object${global} (opcode ${name})`);
  }
}

function printable(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}...` : text);
}

/** Entries of a dictionary, the last of each key. */
export function entriesOf({ entries }: Dict): Map<PickleValue, PickleValue> {
  const map = new Map<PickleValue, PickleValue>();
  for (let i = 0; i < entries.length; i += 2) map.set(entries[i] as PickleValue, entries[i + 1] as PickleValue);
  return map;
}
