/** The drivers without a GPU that tests run with (test/native/cuda_driver). */
import { constants } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { canEmulateCuda, makeEmulatedDrivers } from "../../tools/emulated-cuda.mjs";

/** Where `native-tests.mjs --plain` leaves the same. */
const folder = fileURLToPath(new URL("../../build/native-tests/plain/cuda", import.meta.url));

/** Loads it into this process, before anything looks for a driver. Returns why not, where it cannot be. */
export async function useEmulated(backend: "cuda" | "hip"): Promise<string | undefined> {
  if (!canEmulateCuda) return "the driver of the tests is for Linux";
  const drivers = await makeEmulatedDrivers({ folder });
  // A library that is loaded is found again by its name alone.
  process.dlopen({ exports: {} }, path.resolve(drivers[backend]), constants.dlopen.RTLD_NOW);
  return undefined;
}
