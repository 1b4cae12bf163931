/** What a pickle of tensors can hold. Plain data: nothing here comes from, or runs as, code of the file. */

export type PickleValue = null | boolean | number | bigint | string | PickleObject;

export type PickleObject = Tuple | List | Dict | Global | Storage | Tensor;

/** Containers know how deep they are nested, so that nobody needs to walk down to find out. */
export interface Tuple {
  kind: "tuple";
  items: readonly PickleValue[];
  depth: number;
}

export interface List {
  kind: "list";
  items: PickleValue[];
  depth: number;
}

export interface Dict {
  kind: "dict";
  /** Keys and values in turn; a later entry replaces an earlier one with the same key. */
  entries: PickleValue[];
  depth: number;
}

/** A name that is allowed, as data. */
export interface Global {
  kind: "global";
  name: string;
}

export interface Storage {
  kind: "storage";
  key: string;
  /** As safetensors has it; undefined for bytes without a type. */
  dtype: string | undefined;
  elementBytes: number;
  /** Elements in the storage `key`. */
  length: number;
  /** The part of it that this is, in bytes from its start. */
  offset: number;
  byteLength: number;
}

export interface Tensor {
  kind: "tensor";
  storage: Storage;
  dtype: string;
  /** In bytes, from the start of the storage `storage.key`. */
  offset: number;
  /** From the first to the last element. */
  byteLength: number;
  shape: number[];
  /** In elements; undefined: row-major. */
  strides: number[] | undefined;
}

export function isKind<K extends PickleObject["kind"]>(
  value: PickleValue | undefined,
  kind: K,
): value is Extract<PickleObject, { kind: K }> {
  return typeof value === "object" && value !== null && value.kind === kind;
}
