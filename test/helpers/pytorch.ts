/** Writes the files of torch.save, and files that only look like them, byte by byte. */

export type Bytes = Buffer | string;

/** Opcodes by the names of pickletools. Strings are bytes, one a character. */
export const op = {
  proto: (version = 2) => Buffer.of(0x80, version),
  global: (module: string, name: string) => `c${module}\n${name}\n`,
  unicode: (text: string) => {
    const bytes = Buffer.from(text);
    return Buffer.concat([latin("X"), word(bytes.length), bytes]);
  },
  int: (value: number) => {
    const bytes = Buffer.alloc(9);
    bytes[0] = 8;
    bytes.writeBigInt64LE(BigInt(value), 1);
    return Buffer.concat([Buffer.of(0x8a), bytes]);
  },
  put: (index: number) => Buffer.concat([latin("r"), word(index)]),
  get: (index: number) => Buffer.concat([latin("j"), word(index)]),
  none: "N",
  no: "\x89",
  yes: "\x88",
  mark: "(",
  tuple: "t",
  emptyTuple: ")",
  emptyDict: "}",
  emptyList: "]",
  appends: "e",
  setItem: "s",
  setItems: "u",
  persistentId: "Q",
  reduce: "R",
  build: "b",
  stop: ".",
} as const;

export function latin(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

export function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function join(...parts: readonly Bytes[]): Buffer {
  return Buffer.concat(parts.map((part) => (typeof part === "string" ? latin(part) : part)));
}

export function tuple(...items: readonly Bytes[]): Buffer {
  return join(op.mark, ...items, op.tuple);
}

export interface TensorPlace {
  /** Of a storage type, as "FloatStorage". */
  type?: string;
  key?: string;
  /** Elements in the storage. */
  length?: number;
  offset?: number;
  shape?: number[];
  strides?: number[];
  /** Ends the storage's persistent id: torch.save writes one in the old format. */
  view?: Bytes;
}

export function tensor(place: TensorPlace): Buffer {
  const { type = "FloatStorage", key = "0", length = 6, offset = 0, shape = [2, 3], strides = [3, 1], view } = place;
  const id = [op.unicode("storage"), op.global("torch", type), op.unicode(key), op.unicode("cpu"), op.int(length)];
  const storage = join(tuple(...id, ...(view === undefined ? [] : [view])), op.persistentId);
  const sizes = [shape, strides].map((numbers) => tuple(...numbers.map(op.int)));
  const hooks = join(op.global("collections", "OrderedDict"), op.emptyTuple, op.reduce);
  const args = tuple(storage, op.int(offset), ...sizes, op.no, hooks);
  return join(op.global("torch._utils", "_rebuild_tensor_v2"), args, op.reduce);
}

/** A pickle of a dictionary from names to values. */
export function stateDict(values: Readonly<Record<string, Bytes>>): Buffer {
  const items = Object.entries(values).flatMap(([name, value]) => [op.unicode(name), value]);
  return join(op.proto(), op.emptyDict, op.mark, ...items, op.setItems, op.stop);
}

export interface Entry {
  name: string;
  data: Bytes;
  /** What headers say instead of what is so; `zip64` writes the numbers to the zip64 field. */
  size?: number;
  storedSize?: number;
  offset?: number;
  method?: number;
  flags?: number;
  localName?: string;
  zip64?: boolean;
}

export function zip(
  entries: readonly Entry[],
  end: { count?: number; size?: number; offset?: number; zip64?: boolean } = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let position = 0;
  for (const entry of entries) {
    const data = join(entry.data);
    const local = localHeader(entry, data.length);
    directory.push(directoryEntry(entry, data.length, position));
    parts.push(local, data);
    position += local.length + data.length;
  }
  const table = Buffer.concat(directory);
  const { count = entries.length, size = table.length, offset = position, zip64 } = end;
  const wide = zip64 ? wideEnd(count, size, offset, position + table.length) : Buffer.alloc(0);
  const last = Buffer.alloc(22);
  last.writeUInt32LE(0x06054b50, 0);
  last.writeUInt16LE(zip64 ? 0xffff : count, 8);
  last.writeUInt16LE(zip64 ? 0xffff : count, 10);
  last.writeUInt32LE(zip64 ? 0xffffffff : size, 12);
  last.writeUInt32LE(zip64 ? 0xffffffff : offset, 16);
  return Buffer.concat([...parts, table, wide, last]);
}

function localHeader({ name, localName = name, method = 0 }: Entry, length: number): Buffer {
  const header = Buffer.alloc(30);
  const bytes = Buffer.from(localName);
  // Padding, as torch.save has it: data starts on 64 bytes somewhere, here always 5 bytes further.
  const extra = join("FB", Buffer.of(1, 0), "Z");
  header.writeUInt32LE(0x04034b50, 0);
  header.writeUInt16LE(method, 8);
  header.writeUInt32LE(length, 18);
  header.writeUInt32LE(length, 22);
  header.writeUInt16LE(bytes.length, 26);
  header.writeUInt16LE(extra.length, 28);
  return Buffer.concat([header, bytes, extra]);
}

function directoryEntry(entry: Entry, length: number, position: number): Buffer {
  const { name, size = length, storedSize = size, offset = position, method = 0, flags = 0, zip64 } = entry;
  const header = Buffer.alloc(46);
  const bytes = Buffer.from(name);
  const extra = zip64 ? Buffer.alloc(28) : Buffer.alloc(0);
  if (zip64) {
    extra.writeUInt16LE(1, 0);
    extra.writeUInt16LE(24, 2);
    for (const [index, value] of [size, storedSize, offset].entries())
      extra.writeBigUInt64LE(BigInt(value), 4 + 8 * index);
  }
  header.writeUInt32LE(0x02014b50, 0);
  header.writeUInt16LE(flags, 8);
  header.writeUInt16LE(method, 10);
  header.writeUInt32LE(zip64 ? 0xffffffff : storedSize, 20);
  header.writeUInt32LE(zip64 ? 0xffffffff : size, 24);
  header.writeUInt16LE(bytes.length, 28);
  header.writeUInt16LE(extra.length, 30);
  header.writeUInt32LE(zip64 ? 0xffffffff : offset, 42);
  return Buffer.concat([header, bytes, extra]);
}

function wideEnd(count: number, size: number, offset: number, position: number): Buffer {
  const record = Buffer.alloc(56 + 20);
  record.writeUInt32LE(0x06064b50, 0);
  record.writeBigUInt64LE(44n, 4);
  record.writeBigUInt64LE(BigInt(count), 24);
  record.writeBigUInt64LE(BigInt(count), 32);
  record.writeBigUInt64LE(BigInt(size), 40);
  record.writeBigUInt64LE(BigInt(offset), 48);
  record.writeUInt32LE(0x07064b50, 56);
  record.writeBigUInt64LE(BigInt(position), 64);
  record.writeUInt32LE(1, 72);
  return record;
}

/** What torch.save writes since PyTorch 1.6. */
export function archive(pickle: Bytes, storages: Readonly<Record<string, Bytes>>, more: readonly Entry[] = []): Buffer {
  return zip([
    { name: "model/data.pkl", data: pickle },
    { name: "model/byteorder", data: "little" },
    ...Object.entries(storages).map(([key, data]) => ({ name: `model/data/${key}`, data })),
    { name: "model/version", data: "3\n" },
    ...more,
  ]);
}

/** What it wrote before. Storages are [key, elements, data]. */
export function legacyFile(
  pickle: Bytes,
  storages: readonly (readonly [key: string, length: number, data: Bytes])[],
  littleEndian: Bytes = op.yes,
): Buffer {
  const magic = join(op.proto(), Buffer.of(0x8a, 10), Buffer.from("6cfc9c46f9206aa85019", "hex"), op.stop);
  const protocol = join(op.proto(), op.int(1001), op.stop);
  const system = join(op.proto(), op.emptyDict, op.unicode("little_endian"), littleEndian, op.setItem, op.stop);
  const keys = join(
    op.proto(),
    op.emptyList,
    op.mark,
    ...storages.map(([key]) => op.unicode(key)),
    op.appends,
    op.stop,
  );
  const data = storages.map(([, length, bytes]) => {
    const count = Buffer.alloc(8);
    count.writeBigUInt64LE(BigInt(length));
    return join(count, bytes);
  });
  return join(magic, protocol, system, pickle, keys, ...data);
}
