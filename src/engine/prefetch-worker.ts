/** Runs in a piscina worker: one native call reads one stage. */
import { native } from "../native/binding.js";
import { READ_DONE } from "../native/types.js";

export interface ReadTask {
  /** 0: only load the addon. */
  model: number;
  position: number;
  stage: number;
  /** In the first pass: held chunks are read as well. */
  load: boolean;
}

export default function readStage({ model, position, stage, load }: ReadTask): number {
  const addon = native();
  return model === 0 ? READ_DONE : addon.readStage(model, position, stage, load);
}
