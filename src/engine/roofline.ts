import { openLayerStore } from "../checkpoint/layer-store.js";
import { native } from "../native/binding.js";

/**
 * Raw speed of the disk on the files of the store in `directory`, bytes a second: sequential direct reads, submitted as
 * the engine submits them, for at most `seconds`. Blocks the thread meanwhile.
 */
export async function measureDiskRate(directory: string, seconds: number): Promise<number> {
  const store = await openLayerStore(directory);
  const files = store.manifest.files.filter((file) => file.stages.length > 0);
  return native().measureReadRate(
    files.map((file) => ({ path: store.filePath(file.name), size: file.size })),
    seconds,
  );
}
