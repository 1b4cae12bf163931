/** Runs in a piscina worker: one native call reads the tape for as long as there is space in the ring. */
import { native } from "../native/binding.js";
import { READ_DONE } from "../native/types.js";

export interface ReadTask {
  /** 0: only load the addon. */
  model: number;
}

export default function readTape({ model }: ReadTask): number {
  const addon = native();
  return model === 0 ? READ_DONE : addon.readTape(model);
}
