import type { ConfigReader } from "./config.js";
import { readLayerCount, readWindow } from "./dense-decoder.js";
import { readSlidingLayers } from "./layer-types.js";

/**
 * Windows of Qwen 2 and 3: none unless `use_sliding_window`; then by `layer_types`, and in its absence where `slides` says
 * (default: in the layers from `max_window_layers` on).
 */
export function readQwenWindows(
  config: ConfigReader,
  slides: (layer: number, maxWindowLayers: number) => boolean = (layer, first) => layer >= first,
): (layer: number) => number | undefined {
  const window = config.boolean("use_sliding_window", false) ? readWindow(config, 4096) : undefined;
  const sliding = readSlidingLayers(config, readLayerCount(config));
  if (sliding === undefined) {
    if (window === undefined) return () => undefined;
    const maxWindowLayers = config.integer("max_window_layers", 0, 2 ** 31 - 1, 28);
    return (layer) => (slides(layer, maxWindowLayers) ? window : undefined);
  }
  if (window === undefined && sliding.includes(true)) {
    config.refuse("layer_types", "full_attention everywhere, as use_sliding_window or sliding_window is not set");
  }
  return (layer) => (sliding[layer] ? window : undefined);
}
