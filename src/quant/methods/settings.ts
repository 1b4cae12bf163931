import { z } from "zod";
import { LayerstreamError } from "../../errors.js";
import type { QuantizationConfig } from "./method.js";

/** Columns that share a scale. -1 is all of them. */
export const groupSize = z
  .number()
  .int()
  .min(-1)
  .max(2 ** 31 - 1)
  .refine((size) => size !== 0, "must be -1 or above 0");

/** The value of a key, or `fallback` where the key is absent or null. */
export function withDefault<T>(schema: z.ZodType<T>, fallback: T) {
  return schema.nullish().transform((value) => value ?? fallback);
}

/** Names of modules, or null. */
export const moduleNames = z.array(z.string()).nullish();

/** The settings as `schema` has them; keys that it does not name are ignored. @throws CONFIG_INVALID */
export function parseSettings<T>({ values, file }: QuantizationConfig, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(values);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const path = issue?.path ?? [];
  const key = ["quantization_config", ...path].join(".");
  const value = path.reduce<unknown>((inner, name) => (inner as Record<PropertyKey, unknown>)?.[name], values);
  const shown = JSON.stringify(value)?.slice(0, 60) ?? "missing";
  throw new LayerstreamError("CONFIG_INVALID", `${file}: ${key} is ${shown} (${issue?.message}).`, {
    file,
    remedy: "Compare the file with the checkpoint's original.",
  });
}

/** Groups of `size` columns that `columns` fall into. */
export function groupCount(columns: number, size: number): number {
  return size === -1 ? 1 : Math.ceil(columns / size);
}

/** The module of a linear's weight: "model.layers.0.mlp.up_proj" for "model.layers.0.mlp.up_proj.weight". */
export function moduleOf(tensorName: string): string | undefined {
  return tensorName.endsWith(".weight") ? tensorName.slice(0, -".weight".length) : undefined;
}

/** True if an entry of `list` is the module, or a run of whole parts of its name. */
export function isListed(module: string, list: readonly string[] | null | undefined): boolean {
  return (list ?? []).some((entry) => `.${module}.`.includes(`.${entry}.`));
}
