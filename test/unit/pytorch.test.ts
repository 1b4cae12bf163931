import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { readPyTorchFile, readPyTorchIndex } from "../../dist/checkpoint/pytorch/pytorch-file.js";
import { temporaryDirectory } from "../helpers/files.js";
import {
  archive,
  type Bytes,
  join,
  latin,
  legacyFile,
  op,
  stateDict,
  tensor,
  tuple,
  word,
  zip,
} from "../helpers/pytorch.js";

const DATA = Buffer.from(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);

/** Bytes as a file that checks what it is asked for. */
function fileOf(bytes: Buffer) {
  return {
    file: "model.bin",
    size: bytes.length,
    read: async (offset: number, length: number) => {
      expect(offset >= 0 && length >= 0 && offset + length <= bytes.length).toBe(true);
      return bytes.subarray(offset, offset + length);
    },
  };
}

async function failure(bytes: Buffer): Promise<{ name: string; code: string; message: string; offset: number }> {
  const caught: unknown = await readPyTorchIndex(fileOf(bytes)).then(
    () => new Error("read"),
    (error: unknown) => error,
  );
  expect(caught).toMatchObject({ name: "LayerstreamError", file: "model.bin", offset: expect.any(Number) });
  return caught as Awaited<ReturnType<typeof failure>>;
}

/** The elements that offset, shape and strides lead to. */
async function valuesOf(bytes: Buffer, name: string): Promise<number[]> {
  const found = (await readPyTorchIndex(fileOf(bytes))).tensors.get(name);
  if (!found) throw new Error(`no ${name}`);
  const {
    shape,
    offset,
    strides = [...shape.keys()].map((axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1)),
  } = found;
  const values: number[] = [];
  const visit = (axis: number, element: number): void => {
    if (axis === shape.length) values.push(bytes.readFloatLE(offset + 4 * element));
    else for (let i = 0; i < (shape[axis] as number); i++) visit(axis + 1, element + i * (strides[axis] as number));
  };
  visit(0, 0);
  return values;
}

const small = stateDict({ w: tensor({}) });

describe("files of torch.save", () => {
  const formats: [string, (pickle: Bytes, length: number, data: Buffer) => Buffer][] = [
    ["zip", (pickle, _, data) => archive(pickle, { 0: data })],
    ["legacy", (pickle, length, data) => legacyFile(pickle, [["0", length, data]])],
  ];

  it.each(formats)("%s: views, strides and shared storages", async (_, file) => {
    const bytes = file(
      stateDict({
        whole: tensor({}),
        transposed: tensor({ shape: [3, 2], strides: [1, 3] }),
        column: tensor({ shape: [2], strides: [3], offset: 2 }),
        scalar: tensor({ shape: [], strides: [], offset: 5 }),
        expanded: tensor({ shape: [2, 2], strides: [0, 1], offset: 1 }),
        empty: tensor({ shape: [0, 9], strides: [9, 1], offset: 6 }),
      }),
      6,
      DATA,
    );
    expect(await valuesOf(bytes, "whole")).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await valuesOf(bytes, "transposed")).toEqual([1, 4, 2, 5, 3, 6]);
    expect(await valuesOf(bytes, "column")).toEqual([3, 6]);
    expect(await valuesOf(bytes, "scalar")).toEqual([6]);
    expect(await valuesOf(bytes, "expanded")).toEqual([2, 3, 2, 3]);
    expect(await valuesOf(bytes, "empty")).toEqual([]);
    const { tensors } = await readPyTorchIndex(fileOf(bytes));
    expect(tensors.get("whole")).toMatchObject({ dtype: "F32", byteLength: 24 });
    expect(tensors.get("whole")?.strides).toBeUndefined();
    expect(tensors.get("column")?.byteLength).toBe(16);
  });

  it.each(formats)("%s: what else torch.save writes into a state dictionary", async (_, file) => {
    const metadata = join(op.emptyDict, op.unicode("_metadata"), op.emptyDict, op.setItem);
    const ordered = join(op.global("collections", "OrderedDict"), op.emptyTuple, op.reduce);
    const parameter = join(
      op.global("torch._utils", "_rebuild_parameter"),
      tuple(tensor({}), op.yes, ordered),
      op.reduce,
    );
    const typed = join(
      op.global("torch._utils", "_rebuild_tensor_v3"),
      tuple(
        join(
          tuple(
            op.unicode("storage"),
            op.global("torch.storage", "UntypedStorage"),
            op.unicode("0"),
            op.unicode("cuda:0"),
            op.int(24),
          ),
          op.persistentId,
        ),
        op.int(1),
        tuple(op.int(2)),
        tuple(op.int(1)),
        op.no,
        ordered,
        op.global("torch", "uint16"),
      ),
      op.reduce,
    );
    const attributed = join(
      op.global("torch._tensor", "_rebuild_from_type_v2"),
      tuple(
        op.global("torch._utils", "_rebuild_tensor_v2"),
        op.global("torch.nn.parameter", "Parameter"),
        tensor({}).subarray("ctorch._utils\n_rebuild_tensor_v2\n".length, -1),
        op.emptyDict,
      ),
      op.reduce,
    );
    const pickleOf = (value: Buffer) =>
      join(
        op.proto(),
        ordered,
        op.put(7),
        op.mark,
        op.unicode("w"),
        value,
        op.unicode("step"),
        op.int(3),
        op.setItems,
        metadata,
        op.build,
        op.stop,
      );
    for (const value of [parameter, attributed]) {
      expect(await valuesOf(file(pickleOf(value), 6, DATA), "w")).toEqual([1, 2, 3, 4, 5, 6]);
    }
    const { tensors } = await readPyTorchIndex(fileOf(file(pickleOf(typed), 24, DATA)));
    expect([...tensors.values()]).toMatchObject([{ name: "w", dtype: "U16", shape: [2], byteLength: 4 }]);
  });

  it("zip64 numbers, and a pickle of protocol 4", async () => {
    const pickle = join(
      op.proto(4),
      Buffer.of(0x95, 1, 0, 0, 0, 0, 0, 0, 0),
      op.emptyDict,
      Buffer.of(0x8c, 1),
      "w",
      Buffer.of(0x94),
      tensor({}).subarray("ctorch._utils\n_rebuild_tensor_v2\n".length),
      op.setItem,
      op.stop,
    );
    const call = join(Buffer.of(0x8c, 12), "torch._utils", Buffer.of(0x8c, 18), "_rebuild_tensor_v2", Buffer.of(0x93));
    const at = pickle.indexOf(0x94) + 1;
    const bytes = zip(
      [
        { name: "archive/data.pkl", data: join(pickle.subarray(0, at), call, pickle.subarray(at)), zip64: true },
        { name: "archive/data/0", data: DATA, zip64: true },
      ],
      { zip64: true },
    );
    expect(await valuesOf(bytes, "w")).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("an old view of a storage", async () => {
    const view = tuple(op.unicode("view"), op.int(2), op.int(4));
    const pickle = stateDict({ w: tensor({ view, shape: [2, 2], strides: [2, 1] }) });
    expect(await valuesOf(legacyFile(pickle, [["0", 6, DATA]]), "w")).toEqual([3, 4, 5, 6]);
  });

  it.each(["zip", "zip-protocol-4", "legacy"])("what PyTorch 2.13 wrote: %s", async (name) => {
    const file = path.join(import.meta.dirname, "../fixtures/pytorch", `${name}.bin`);
    const { tensors } = await readPyTorchFile(file);
    const bytes = readFileSync(file);
    expect([...tensors.values()].map(({ name, dtype, shape, strides }) => [name, dtype, shape, strides])).toEqual([
      ["a", "BF16", [3, 4], undefined],
      ["b", "BF16", [2, 4], undefined],
      ["c", "BF16", [4, 3], [1, 4]],
      ["d", "F16", [2], undefined],
      ["e", "F8_E4M3", [2], undefined],
    ]);
    const at = (name: string) => tensors.get(name)?.offset ?? 0;
    const bfloat16 = Array.from({ length: 12 }, (_, i) => bytes.readUInt16LE(at("a") + 2 * i));
    expect(bfloat16.map((bits) => new DataView(Uint32Array.of(bits << 16).buffer).getFloat32(0, true))).toEqual([
      ...Array(12).keys(),
    ]);
    expect([at("b"), at("c")]).toEqual([at("a") + 8, at("a")]);
    expect(bytes.readUInt32LE(at("d"))).toBe(0x3c003c00);
  });

  it("legacy pickles that are longer than what is read at first", async () => {
    const names = Array.from({ length: 6000 }, (_, index) => `model.layers.${index}.weight`);
    const bytes = legacyFile(stateDict(Object.fromEntries(names.map((name) => [name, tensor({})]))), [["0", 6, DATA]]);
    const file = path.join(temporaryDirectory(), "model.bin");
    writeFileSync(file, bytes);
    const { tensors, dataOffset } = await readPyTorchFile(file);
    expect(tensors.size).toBe(6000);
    expect(tensors.get("model.layers.5999.weight")?.offset).toBe(dataOffset + 8);
    expect(dataOffset).toBeGreaterThan(1_000_000);
  });
});

describe("pickles that are refused by name", () => {
  const command = tuple(op.unicode("touch owned"));
  const pickles: [string, Buffer, string][] = [
    ["os.system", join(op.global("os", "system"), command, op.reduce), "os.system"],
    ["posix.system, as os.system is pickled", join(op.global("posix", "system"), command, op.reduce), "posix.system"],
    ["builtins.eval", join(op.global("builtins", "eval"), command, op.reduce), "builtins.eval"],
    ["eval of Python 2", join(op.global("__builtin__", "eval"), command, op.reduce), "__builtin__.eval"],
    ["subprocess.Popen", join(op.global("subprocess", "Popen"), command, op.reduce), "subprocess.Popen"],
    [
      "torch.load itself",
      join(op.global("torch.serialization", "load"), command, op.reduce),
      "torch.serialization.load",
    ],
    ["a name on the stack", join(op.unicode("os"), op.unicode("system"), "\x93", command, op.reduce), "os.system"],
    [
      "a dotted name",
      join(op.unicode("torch"), op.unicode("os.system"), "\x93", command, op.reduce),
      "torch.os.system",
    ],
    ["a name only", join(op.global("os", "system")), "os.system"],
    ["INST", join(op.mark, op.unicode("id"), "ios\nsystem\n"), "os.system"],
    ["OBJ", join(op.mark, op.global("collections", "OrderedDict"), op.unicode("id"), "o"), "OBJ"],
    ["NEWOBJ", join(op.global("collections", "OrderedDict"), op.emptyTuple, "\x81"), "NEWOBJ"],
    ["NEWOBJ_EX", join(op.global("torch", "Size"), op.emptyTuple, op.emptyDict, "\x92"), "NEWOBJ_EX"],
    ["an extension code", Buffer.of(0x82, 1), "EXT1"],
    ["a textual persistent id", latin("Pid\n"), "PERSID"],
    ["BUILD of a storage type", join(op.global("torch", "FloatStorage"), op.emptyDict, op.build), "BUILD"],
    ["BUILD of a list", join(op.emptyList, op.emptyDict, op.build), "BUILD"],
    ["a storage of a name with a path", join(op.global("torch", "FloatStorage.__init__")), "FloatStorage.__init__"],
    ["a name that JavaScript objects inherit", join(op.global("constructor", "prototype")), "constructor.prototype"],
  ];

  it.each(pickles)("%s", async (_, value, name) => {
    const pickle = stateDict({ w: tensor({}), x: value });
    for (const bytes of [archive(pickle, { 0: DATA }), legacyFile(pickle, [["0", 6, DATA]])]) {
      const { code, message, offset } = await failure(bytes);
      expect(code).toBe("PICKLE_REFUSED");
      expect(message).toContain(name);
      // At the opcode in question, within the value.
      const begin = bytes.indexOf(value);
      expect(offset).toBeGreaterThanOrEqual(begin);
      expect(offset).toBeLessThan(begin + value.length);
    }
  });

  it("whatever comes first in the file", async () => {
    expect((await failure(latin("cos\nsystem\n(S'id'\ntR."))).message).toContain("os.system");
  });
});

describe("pickles that make no sense", () => {
  const nested = (count: number) => join(op.emptyTuple, Buffer.alloc(count, 0x85));
  const cases: [string, Buffer, string][] = [
    ["tuples nested without end", nested(100_000), "more than 64 deep"],
    [
      "lists nested without end",
      join(...Array.from({ length: 1000 }, () => op.emptyList), Buffer.alloc(999, "a")),
      "64 deep",
    ],
    ["marks without end", Buffer.alloc(1_100_000, "("), "open marks"],
    ["values without end", Buffer.alloc(1_100_000, "N"), "on its stack"],
    [
      "tuples that double",
      join(op.emptyTuple, ...Array.from({ length: 100 }, () => join(op.put(1), op.get(1), "\x86"))),
      "deep",
    ],
    ["a memo of everything", join(op.none, Buffer.alloc(1_000_001, 0x94)), "remembers more than"],
    ["tuples without end", Buffer.alloc(2_100_000, "()))))t"), "more than 1000000 values"],
    ["operations without end", join(op.emptyList, Buffer.alloc(5_000_000, "(e")), "more than 4000000 operations"],
    ["a string of 4 GB", join("X", word(0xffff_fff0), "abc"), "a string of 4294967280 bytes"],
    ["a short string that is cut", join("U", Buffer.of(200), "abc"), "ends too early"],
    ["a name without end", join("c", "a".repeat(5000)), "a name of more than"],
    ["an integer of 255 bytes", join(Buffer.of(0x8a, 255), Buffer.alloc(255)), "an integer of 255 bytes"],
    ["an unknown protocol", Buffer.of(0x80, 77), "protocol 77"],
    ["an opcode of protocol 0", latin("I42\n"), "0x49"],
    ["nothing to take", latin("R"), "more from its stack"],
    ["a take through a mark", latin("N(\x85"), "more from its stack"],
    ["a return to no mark", latin("Nt"), "a mark that is not there"],
    ["a value that was not remembered", latin("h\x09"), "value 9"],
    ["nothing to remember", latin("(q\x00"), "remembers nothing"],
    ["a list that is none", latin("NNa"), "not a list"],
    ["a dictionary that is none", latin("NNNs"), "not a dictionary"],
    ["a key without a value", latin("}(Nu"), "without a value"],
    ["a call of a string", join(op.unicode("os.system"), op.emptyTuple, op.reduce), "not a name"],
    ["a call of a type", join(op.global("torch", "FloatStorage"), op.emptyTuple, op.reduce), "only names a type"],
    [
      "a call without arguments",
      join(op.global("torch._utils", "_rebuild_tensor_v2"), op.emptyTuple, op.reduce),
      "storage",
    ],
    ["a persistent id that is no tuple", join(op.unicode("0"), op.persistentId), "storage"],
    ["a storage of another kind", tensor({ type: "float32" }), "type torch.float32"],
    [
      "a tensor that leaves its storage",
      tensor({ shape: [2, 4], strides: [3, 1] }),
      "ends at byte 28 of a storage of 24",
    ],
    ["a tensor far behind its storage", tensor({ offset: 2 ** 52 }), "ends at byte"],
    ["a tensor whose extent overflows", tensor({ shape: [2 ** 40, 2], strides: [2 ** 40, 1] }), "ends at byte"],
    ["a negative size", tensor({ shape: [-2, 3] }), "a size of -2"],
    ["a negative stride", tensor({ strides: [-3, 1], offset: 3 }), "a stride of -3"],
    ["a size above 2^53", tensor({ shape: [2 ** 60, 1], strides: [0, 0] }), "a size of 1152921504606846976"],
    ["axes without strides", tensor({ shape: [2, 3], strides: [3] }), "2 axes with 1 strides"],
    ["a tensor of 1000 axes", tensor({ shape: Array(1000).fill(1), strides: Array(1000).fill(1) }), "1000 axes"],
    ["a storage of 2^60 elements", tensor({ length: 2 ** 60 }), "a storage of 1152921504606846976"],
    ["a dictionary in the place of a tensor", join(op.emptyDict), "not a state dictionary"],
  ];

  it.each(cases)("%s", async (_, value, reason) => {
    const { code, message } = await failure(archive(stateDict({ w: join(value) }), { 0: DATA }));
    expect(code).toBe("PICKLE_INVALID");
    expect(message).toContain(reason);
    expect(message.length).toBeLessThan(500);
  });

  it("a list instead of a dictionary", async () => {
    const { message } = await failure(archive(join(op.proto(), op.emptyList, op.stop), {}));
    expect(message).toContain("no dictionary");
  });
});

describe("archives that make no sense", () => {
  const main = { name: "model/data.pkl", data: small };
  const data = { name: "model/data/0", data: DATA };
  const cases: [string, Buffer, string, string][] = [
    [
      "a name with ..",
      zip([main, data, { name: "model/../../etc/passwd", data: "x" }]),
      "ARCHIVE_INVALID",
      "../../etc/passwd",
    ],
    ["an absolute name", zip([main, data, { name: "/etc/passwd", data: "x" }]), "ARCHIVE_INVALID", "/etc/passwd"],
    ["a Windows name", zip([main, data, { name: "model\\..\\x", data: "x" }]), "ARCHIVE_INVALID", "unsafe name"],
    ["a name with a drive", zip([main, data, { name: "C:/x", data: "x" }]), "ARCHIVE_INVALID", "unsafe name"],
    ["an entry twice", zip([main, data, data]), "ARCHIVE_INVALID", '"model/data/0" twice'],
    ["an entry of 4 GB", zip([main, { ...data, size: 0xffff_fff0 }]), "ARCHIVE_INVALID", "4294967280 bytes"],
    [
      "an entry of 2^50 bytes",
      zip([main, { ...data, size: 2 ** 50, zip64: true }]),
      "ARCHIVE_INVALID",
      "1125899906842624 bytes",
    ],
    ["an entry somewhere else", zip([main, { ...data, offset: 2 ** 31 }]), "ARCHIVE_INVALID", "beyond the end"],
    ["an entry at the place of another", zip([main, { ...data, offset: 0 }]), "ARCHIVE_INVALID", "overlaps"],
    ["an entry within another", zip([{ ...main, size: small.length + 10 }, data]), "ARCHIVE_INVALID", "overlaps"],
    ["an entry that runs into the table", zip([main, { ...data, size: 40 }]), "ARCHIVE_INVALID", "more than there are"],
    [
      "a local header of another name",
      zip([main, { ...data, localName: "model/data/1" }]),
      "ARCHIVE_INVALID",
      "contradicts",
    ],
    ["a compressed entry", zip([main, { ...data, method: 8 }]), "ARCHIVE_INVALID", "compressed (method 8)"],
    ["an encrypted entry", zip([main, { ...data, flags: 1 }]), "ARCHIVE_INVALID", "encrypted"],
    ["two sizes", zip([main, { ...data, storedSize: 23 }]), "ARCHIVE_INVALID", "23 are stored"],
    ["more entries than there are", zip([main, data], { count: 60_000 }), "ARCHIVE_INVALID", "60000 entries"],
    ["fewer entries than there are", zip([main, data], { count: 1 }), "ARCHIVE_INVALID", "a rest"],
    ["a table outside the file", zip([main, data], { offset: 0xfff_0000 }), "ARCHIVE_INVALID", "beyond its end"],
    [
      "a table of 2^60 bytes",
      zip([main, data], { size: 2 ** 60, zip64: true }),
      "ARCHIVE_INVALID",
      "1152921504606846976",
    ],
    ["2^50 entries", zip([main, data], { count: 2 ** 50, zip64: true }), "ARCHIVE_INVALID", "1125899906842624 entries"],
    [
      "two pickles",
      zip([main, data, { ...main, name: "other/data.pkl" }]),
      "PICKLE_INVALID",
      "2 entries named data.pkl",
    ],
    ["no pickle", zip([data]), "PICKLE_INVALID", "0 entries named data.pkl"],
    ["no storage", zip([main]), "PICKLE_INVALID", '"model/data/0"'],
    [
      "a storage that is too short",
      zip([main, { ...data, data: DATA.subarray(1) }]),
      "PICKLE_INVALID",
      "23 bytes instead of 6",
    ],
    [
      "a storage of a name with a path",
      archive(stateDict({ w: tensor({ key: "../byteorder" }) }), { 0: DATA }),
      "PICKLE_INVALID",
      "no entry",
    ],
    [
      "big-endian data",
      zip([main, data, { name: "model/byteorder", data: "big" }]),
      "PICKLE_INVALID",
      '"big" byte order',
    ],
    ["a pickle that ends too early", archive(small.subarray(0, -9), { 0: DATA }), "PICKLE_INVALID", "ends too early"],
    [
      "big-endian data in the old format",
      legacyFile(small, [["0", 6, DATA]], op.no),
      "PICKLE_INVALID",
      "little-endian",
    ],
    ["a storage of another length", legacyFile(small, [["0", 7, DATA]]), "PICKLE_INVALID", "7 elements instead of 6"],
    [
      "a storage twice",
      legacyFile(small, [
        ["0", 6, DATA],
        ["0", 6, DATA],
      ]),
      "PICKLE_INVALID",
      "twice",
    ],
    [
      "a storage of no tensor",
      legacyFile(small, [
        ["1", 6, DATA],
        ["0", 6, DATA],
      ]),
      "PICKLE_INVALID",
      "no tensor is in",
    ],
    ["a storage that is not there", legacyFile(small, []), "PICKLE_INVALID", '"0"'],
    ["an empty file", Buffer.alloc(0), "PICKLE_INVALID", "ends too early"],
    ["a file of another kind", Buffer.from("GGUF".padEnd(100, "\0")), "PICKLE_INVALID", "has the opcode 0x00"],
  ];

  it.each(cases)("%s", async (_, bytes, code, reason) => {
    const error = await failure(bytes);
    expect(error.code).toBe(code);
    expect(error.message).toContain(reason);
  });

  it("files that are cut anywhere", { timeout: 60_000 }, async () => {
    for (const bytes of [archive(small, { 0: DATA }), legacyFile(small, [["0", 6, DATA]])]) {
      for (let length = 0; length < bytes.length; length++) {
        expect((await failure(bytes.subarray(0, length))).code).toMatch(
          /^(PICKLE_INVALID|PICKLE_REFUSED|ARCHIVE_INVALID)$/,
        );
      }
    }
  });
});
