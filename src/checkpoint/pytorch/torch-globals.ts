/** The names that pickles of tensors need, and what each means. There are no others. */
import { DTYPE_BITS } from "../safetensors.js";
import { type Global, isKind, type PickleValue, type Storage, type Tensor, type Tuple } from "./pickle-values.js";

/** What is wrong with a value, as the end of a sentence. */
export class ValueError extends Error {}

const MAX_RANK = 64;

const STORAGE_DTYPES: Readonly<Record<string, string>> = {
  "torch.DoubleStorage": "F64",
  "torch.FloatStorage": "F32",
  "torch.HalfStorage": "F16",
  "torch.BFloat16Storage": "BF16",
  "torch.LongStorage": "I64",
  "torch.IntStorage": "I32",
  "torch.ShortStorage": "I16",
  "torch.CharStorage": "I8",
  "torch.ByteStorage": "U8",
  "torch.BoolStorage": "BOOL",
  "torch.ComplexFloatStorage": "C64",
};

const UNTYPED_STORAGES = ["torch.storage.UntypedStorage", "torch.UntypedStorage"];

const DTYPES: Readonly<Record<string, string>> = {
  "torch.float64": "F64",
  "torch.float32": "F32",
  "torch.float16": "F16",
  "torch.bfloat16": "BF16",
  "torch.float8_e4m3fn": "F8_E4M3",
  "torch.float8_e5m2": "F8_E5M2",
  "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
  "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
  "torch.float8_e8m0fnu": "F8_E8M0",
  "torch.int64": "I64",
  "torch.int32": "I32",
  "torch.int16": "I16",
  "torch.int8": "I8",
  "torch.uint64": "U64",
  "torch.uint32": "U32",
  "torch.uint16": "U16",
  "torch.uint8": "U8",
  "torch.bool": "BOOL",
};

type Rule = (args: readonly PickleValue[]) => PickleValue;

const REBUILD_RULES: Readonly<Record<string, Rule>> = {
  "torch._utils._rebuild_tensor": (args) => rebuildTensor(args, undefined),
  "torch._utils._rebuild_tensor_v2": (args) => rebuildTensor(args, undefined),
  "torch._utils._rebuild_tensor_v3": (args) => rebuildTensor(args, args[6]),
};

/** What calling each name means. */
const RULES: Readonly<Record<string, Rule>> = {
  ...REBUILD_RULES,
  "torch._utils._rebuild_parameter": ([data]) => asTensor(data),
  "torch._utils._rebuild_parameter_with_state": ([data]) => asTensor(data),
  "torch._tensor._rebuild_from_type_v2": ([build, , args]) => {
    const rule = isKind(build, "global") ? REBUILD_RULES[build.name] : undefined;
    if (rule && isKind(args, "tuple")) return rule(args.items);
    throw new ValueError("rebuilds a tensor in an unknown way");
  },
  "collections.OrderedDict": (args) => {
    if (args.length === 0) return { kind: "dict", entries: [], depth: 1 };
    throw new ValueError("makes an OrderedDict of something");
  },
  "torch.Size": ([sizes]) => {
    if (isKind(sizes, "tuple")) return sizes;
    throw new ValueError("has a torch.Size that is not made of a tuple");
  },
  "torch.device": () => null,
};

const DATA_NAMES: readonly string[] = [
  ...Object.keys(STORAGE_DTYPES),
  ...UNTYPED_STORAGES,
  ...Object.keys(DTYPES),
  "torch.Tensor",
  "torch.nn.parameter.Parameter",
];

const NAMES: ReadonlySet<string> = new Set([...Object.keys(RULES), ...DATA_NAMES]);

export function isAllowedGlobal(name: string): boolean {
  return NAMES.has(name);
}

/** @throws ValueError */
export function callGlobal({ name }: Global, args: Tuple): PickleValue {
  const rule = RULES[name];
  if (rule) return rule(args.items);
  throw new ValueError(`calls ${name}, which only names a type`);
}

/** ("storage", type, key, location, length [, (key, offset, length) of a view]), as torch.save has it. @throws ValueError */
export function loadStorage(id: PickleValue): Storage {
  const [tag, type, key, , count, view] = isKind(id, "tuple") ? id.items : [];
  if (tag !== "storage" || !isKind(type, "global") || typeof key !== "string") {
    throw new ValueError("refers to something else than a storage");
  }
  const dtype = STORAGE_DTYPES[type.name];
  if (!dtype && !UNTYPED_STORAGES.includes(type.name)) throw new ValueError(`has a storage of type ${type.name}`);
  const elementBytes = dtype ? bytesOf(dtype) : 1;
  const length = sizeOf(count, "storage");
  const whole = {
    kind: "storage",
    key,
    dtype,
    elementBytes,
    length,
    offset: 0,
    byteLength: length * elementBytes,
  } as const;
  if (!Number.isSafeInteger(whole.byteLength)) throw new ValueError(`has a storage of ${length} elements`);
  if (view === undefined || view === null) return whole;
  const [, first, part] = isKind(view, "tuple") ? view.items : [];
  const [offset, viewed] = [sizeOf(first, "storage view"), sizeOf(part, "storage view")];
  if (offset + viewed > length) throw new ValueError(`has a view of a storage that leaves its ${length} elements`);
  return { ...whole, offset: offset * elementBytes, byteLength: viewed * elementBytes };
}

function asTensor(value: PickleValue | undefined): Tensor {
  if (isKind(value, "tensor")) return value;
  throw new ValueError("makes a parameter of something else than a tensor");
}

/** (storage, offset, size, stride, ...): elements, row-major where strides say so. */
function rebuildTensor([storage, first, size, stride]: readonly PickleValue[], type: PickleValue | undefined): Tensor {
  if (!isKind(storage, "storage")) throw new ValueError("makes a tensor of something else than a storage");
  const dtype = isKind(type, "global") ? DTYPES[type.name] : type === undefined ? storage.dtype : undefined;
  if (!dtype) throw new ValueError("has a tensor without a known dtype");
  const elementBytes = bytesOf(dtype);
  const offset = sizeOf(first, "storage offset");
  const [shape, strides] = [sizesOf(size, "size"), sizesOf(stride, "stride")];
  if (shape.length !== strides.length) {
    throw new ValueError(`has a tensor of ${shape.length} axes with ${strides.length} strides`);
  }
  const last = shape.reduce((sum, count, axis) => sum + BigInt(count - 1) * BigInt(strides[axis] ?? 0), BigInt(offset));
  const end = shape.includes(0) ? 0n : (last + 1n) * BigInt(elementBytes);
  if (end > BigInt(storage.byteLength)) {
    throw new ValueError(
      `has a tensor [${shape.join(", ")}] with strides [${strides.join(", ")}] that ends at byte ${end} of a storage of ${storage.byteLength} bytes`,
    );
  }
  const start = offset * elementBytes;
  const byteLength = shape.includes(0) ? 0 : Number(end) - start;
  const place = { offset: storage.offset + start, byteLength };
  return { kind: "tensor", storage, dtype, ...place, shape, strides: isRowMajor(shape, strides) ? undefined : strides };
}

/** Strides of axes of one element mean nothing. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1n;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const count = shape[axis] as number;
    if (count !== 1 && BigInt(strides[axis] as number) !== expected) return false;
    expected *= BigInt(count);
  }
  return true;
}

function sizesOf(value: PickleValue | undefined, what: string): number[] {
  if (!isKind(value, "tuple")) throw new ValueError(`has a tensor whose ${what} is not a tuple`);
  if (value.items.length > MAX_RANK) throw new ValueError(`has a tensor of ${value.items.length} axes`);
  return value.items.map((item) => sizeOf(item, what));
}

function sizeOf(value: PickleValue | undefined, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  const shown = typeof value === "number" || typeof value === "bigint" ? String(value) : "not a number";
  throw new ValueError(`has a ${what} of ${shown}`);
}

function bytesOf(dtype: string): number {
  return (DTYPE_BITS[dtype] as number) / 8;
}
