import type { ConfigReader } from "./config.js";
import { readLayerCount, readWindow } from "./dense-decoder.js";

const LAYER_TYPES = new Set(["full_attention", "sliding_attention"]);

/**
 * Windows of Qwen 2 and 3: none unless `use_sliding_window`; then by `layer_types`, and in its absence in the layers
 * from `max_window_layers` on.
 */
export function readQwenWindows(config: ConfigReader): (layer: number) => number | undefined {
  const layerCount = readLayerCount(config);
  const window = config.boolean("use_sliding_window", false) ? readWindow(config, 4096) : undefined;
  const types = config.strings("layer_types");
  if (types === undefined) {
    if (window === undefined) return () => undefined;
    const first = config.integer("max_window_layers", 0, 2 ** 31 - 1, 28);
    return (layer) => (layer >= first ? window : undefined);
  }

  if (types.length !== layerCount) {
    config.refuse("layer_types", `a list of num_hidden_layers (${layerCount}) entries`);
  }
  if (!types.every((type) => LAYER_TYPES.has(type))) {
    const unknown = types.find((type) => !LAYER_TYPES.has(type));
    config.unsupported(
      "layer_types",
      `It names ${JSON.stringify(unknown)}; supported: ${[...LAYER_TYPES].join(", ")}.`,
    );
  }
  if (window === undefined && types.includes("sliding_attention")) {
    config.refuse("layer_types", "full_attention everywhere, as use_sliding_window or sliding_window is not set");
  }
  return (layer) => (types[layer] === "sliding_attention" ? window : undefined);
}
