import { existsSync } from "node:fs";
import { openCheckpoint, readCheckpointConfig } from "../checkpoint/checkpoint.js";
import { isLayerStore, type LayerStore, openLayerStore, storePathFor } from "../checkpoint/layer-store.js";
import type { LoadOptions } from "../engine/contract.js";
import { LayerstreamError } from "../errors.js";
import { architectureOf } from "../models/registry.js";
import { decompose } from "./decompose.js";

/** By store: who asks for it meanwhile waits, and writes it when the other could not. */
const decomposing = new Map<string, Promise<unknown>>();

/**
 * The store of the checkpoint at `path`, written first if it is missing or the checkpoint changed.
 * @throws CHECKPOINT_NOT_FOUND, and what opening, planning and `decompose` throw
 */
export async function openDecomposed(path: string, options: LoadOptions): Promise<LayerStore> {
  if (!existsSync(path) && /^[\w.-]+\/[\w.-]+$/.test(path)) {
    throw new LayerstreamError("CHECKPOINT_NOT_FOUND", `There is no directory ${path}.`, {
      file: path,
      remedy: "If it is a repository: this version does not download; give the directory of its files.",
    });
  }
  // Refuses what is not supported before it opens shards, and before anything is written.
  const { config, configFile } = await readCheckpointConfig(path);
  architectureOf(config, configFile);
  const checkpoint = await openCheckpoint(path);
  const { compression, embeddingCompression, headCompression } = options;
  const store = storePathFor(checkpoint, {
    savingPath: options.layerShardsSavingPath,
    cacheDir: options.cacheDir,
    compression,
    embeddingCompression,
    headCompression,
  });
  while (!(await isLayerStore(store))) {
    options.signal?.throwIfAborted();
    const other = decomposing.get(store);
    if (other) {
      await other.catch(() => {});
      continue;
    }
    const own = decompose({
      checkpoint: path,
      store,
      compression,
      embeddingCompression,
      headCompression,
      requantize: options.requantize,
      deleteOriginal: options.deleteOriginal,
      signal: options.signal,
      onProgress: ({ bytesDone, bytesTotal }) => options.onProgress?.({ phase: "decompose", bytesDone, bytesTotal }),
    });
    decomposing.set(store, own);
    await own.finally(() => decomposing.delete(store));
  }
  return openLayerStore(store);
}
