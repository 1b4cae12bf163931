import type { ConfigReader } from "./config.js";

const LAYER_TYPES = new Set(["full_attention", "sliding_attention"]);

/**
 * `layer_types`: which layers see a window only. Undefined when the key is absent or null.
 * @throws CONFIG_INVALID if the list has another length than layers; UNSUPPORTED_MODEL for other kinds of layers
 */
export function readSlidingLayers(config: ConfigReader, layerCount: number): readonly boolean[] | undefined {
  const types = config.strings("layer_types");
  if (types === undefined) return undefined;
  if (types.length !== layerCount) {
    config.refuse("layer_types", `a list of as many entries as there are layers (${layerCount})`);
  }
  const unknown = types.find((type) => !LAYER_TYPES.has(type));
  if (unknown !== undefined) {
    config.unsupported(
      "layer_types",
      `It names ${JSON.stringify(unknown)}; supported: ${[...LAYER_TYPES].join(", ")}.`,
    );
  }
  return types.map((type) => type === "sliding_attention");
}
