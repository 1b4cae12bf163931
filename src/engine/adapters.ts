import type { LoraAdapter, LowRankUpdate } from "../checkpoint/lora-adapter.js";
import { LayerstreamError } from "../errors.js";
import { type Architecture, type RowView, type Stage, type TensorSpec, tensorName } from "../models/architecture.js";
import type { NativeMatrix } from "../native/types.js";

type NativeAdapter = NonNullable<NativeMatrix["adapters"]>[number];

const SUFFIX = ".weight";

/** Matches adapters with the matrices of a model, and knows in the end whether any of their modules was left over. */
export class AdapterMatcher {
  private readonly unused: Set<string>[];

  constructor(private readonly adapters: readonly LoraAdapter[]) {
    this.unused = adapters.map(({ updates }) => new Set(updates.keys()));
  }

  /**
   * What `spec`'s matrix gains in this stage: adapters of the module that it is, or of the packed module that holds its
   * rows. @throws LORA_INVALID for shapes that do not fit, and modules that are not stored as they multiply
   */
  updatesOf(spec: TensorSpec, stage: Stage): NativeAdapter[] {
    const sources = spec.sources ?? [{ name: spec.name, shape: spec.shape }];
    const found: NativeAdapter[] = [];
    for (const [index, { updates, file }] of this.adapters.entries()) {
      for (const source of sources) {
        const name = tensorName(source, stage.layer, stage.expert);
        const module = name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : name;
        const update = updates.get(module);
        if (update === undefined) continue;
        const [rows, columns] = source.shape as [number, number];
        if (source.transposedGroups || source.experts !== undefined) {
          throw invalid(file, `module "${module}" is stored in a form that takes no adapter`);
        }
        if (update.rows !== rows || update.columns !== columns) {
          const shapes = `[${update.rows}, ${update.columns}], but the model's is [${rows}, ${columns}]`;
          throw invalid(file, `module "${module}" is for a matrix of ${shapes}`);
        }
        this.unused[index]?.delete(module);
        const { rank, scale, a, b } = update;
        found.push({ rank, scale, a, b: source.rows ? pickRows(update, source.rows) : b });
        break;
      }
    }
    return found;
  }

  /** @throws LORA_INVALID naming a module that the model does not have */
  checkAllUsed({ modelType }: Architecture): void {
    for (const [index, names] of this.unused.entries()) {
      const [module] = names;
      if (module === undefined) continue;
      throw invalid(this.adapters[index]?.file, `the ${modelType} model has no linear layer "${module}"`);
    }
  }
}

function pickRows({ b, rank }: LowRankUpdate, { offset, dims }: RowView): Float32Array {
  const rows = dims.reduce<number[]>(
    (starts, [count, stride]) => starts.flatMap((start) => Array.from({ length: count }, (_, i) => start + i * stride)),
    [offset],
  );
  const picked = new Float32Array(rows.length * rank);
  for (const [index, row] of rows.entries()) picked.set(b.subarray(row * rank, (row + 1) * rank), index * rank);
  return picked;
}

function invalid(file: string | undefined, what: string): LayerstreamError {
  return new LayerstreamError("LORA_INVALID", `${file}: ${what}.`, {
    file,
    remedy: "Check that the adapter was trained on this model; else merge it into its model with PEFT.",
  });
}
