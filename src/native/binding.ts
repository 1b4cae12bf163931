import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { LayerstreamError } from "../errors.js";
import type { NativeAddon } from "./types.js";

const require = createRequire(import.meta.url);
const builtHere = fileURLToPath(new URL("../../build/Release/layerstream.node", import.meta.url));
const prebuilt = `@layerstream/${process.platform}-${process.arch}`;

let loaded: NativeAddon | undefined;

/**
 * The addon, loaded at the first call: the prebuilt package of this platform where it is installed, else the file
 * that `layerstream build` leaves in the package.
 *
 * @throws LayerstreamError NATIVE_ADDON_MISSING if there is neither, or if it does not load here.
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
  try {
    return require(file) as NativeAddon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LayerstreamError("NATIVE_ADDON_MISSING", `The native addon ${file} does not load here: ${reason}.`, {
      file,
      cause,
      remedy: "Build it again with: npx layerstream build",
    });
  }
}

function prebuiltPath(): string | undefined {
  try {
    return require.resolve(prebuilt);
  } catch {
    return undefined;
  }
}
