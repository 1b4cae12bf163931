import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { LayerstreamError } from "../errors.js";
import type { NativeDevices, NativeMeasure } from "./device-types.js";
import type { NativeCodec, NativeEngine, NativeRepack, NativeTransfers } from "./types.js";

export type NativeAddon = NativeCodec & NativeRepack & NativeEngine & NativeTransfers & NativeDevices & NativeMeasure;

const require = createRequire(import.meta.url);
const builtHere = fileURLToPath(new URL("../../build/Release/layerstream.node", import.meta.url));
const prebuilt = `@layerstream/${process.platform}-${process.arch}`;

let loaded: NativeAddon | undefined;

/**
 * The addon, loaded at the first call: the prebuilt package of this platform where it is installed, else the file
 * that `layerstream build` leaves in the package.
 *
 * @throws LayerstreamError NATIVE_ADDON_MISSING if there is neither, if it does not load here, or if it is of another version.
 */
export function native(): NativeAddon {
  loaded ??= load();
  return loaded;
}

function load(): NativeAddon {
  const packaged = prebuiltPath();
  if (packaged === undefined && !existsSync(builtHere)) {
    throw new LayerstreamError(
      "NATIVE_ADDON_MISSING",
      `The native addon has not been built: there is no ${builtHere}.`,
      {
        file: builtHere,
        remedy: "Build it with: npx layerstream build",
      },
    );
  }
  const file = packaged ?? builtHere;
  const remedy = "Build it again with: npx layerstream build";
  let addon: Partial<NativeAddon>;
  try {
    addon = require(file) as Partial<NativeAddon>;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const what = `The native addon ${file} does not load here: ${reason}.`;
    throw new LayerstreamError("NATIVE_ADDON_MISSING", what, { file, cause, remedy });
  }
  const missing = Object.keys(functionNames).find((name) => typeof addon[name as keyof NativeAddon] !== "function");
  if (missing === undefined) return addon as NativeAddon;
  const what = `The native addon ${file} is of another version: it has no ${missing}.`;
  throw new LayerstreamError("NATIVE_ADDON_MISSING", what, { file, remedy });
}

/** Everything that the addon exports. One built from other sources lacks some of it. */
const functionNames = {
  activityNames: true,
  cancelModel: true,
  cpuKernels: true,
  crc32c: true,
  createModel: true,
  createTransfer: true,
  dequantize: true,
  firstMaximum: true,
  destroyModel: true,
  devices: true,
  deviceFreeBytes: true,
  deviceScratchBytes: true,
  encodeWindows: true,
  dropFileCache: true,
  expandRows: true,
  checkDevice: true,
  holdDevice: true,
  measureCopyRate: true,
  measureDevice: true,
  measureMatmulRate: true,
  measureMemoryRate: true,
  measurePeakRate: true,
  measureReadRate: true,
  modelStats: true,
  mostEscapes: true,
  narrowToBf16: true,
  packRows: true,
  phaseSums: true,
  quantize: true,
  readTape: true,
  resetTape: true,
  rowBytes: true,
  runPass: true,
  setHeld: true,
  setTapeIdle: true,
  setWorkingMemory: true,
  stageChunks: true,
  traceActivity: true,
  topCandidates: true,
  traceSpans: true,
  unpackCodes: true,
} satisfies Record<keyof NativeAddon, true>;

function prebuiltPath(): string | undefined {
  try {
    return require.resolve(prebuilt);
  } catch {
    return undefined;
  }
}
