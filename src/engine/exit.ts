/** The end of the process: Node waits for its workers, and one that reads a tape must not wait for a pass. */
import { native } from "../native/binding.js";

const models = new Set<number>();

function cancelAll(): void {
  for (const model of models) native().cancelModel(model);
}

export function cancelAtExit(model: number): void {
  if (models.size === 0) process.on("exit", cancelAll);
  models.add(model);
}

export function forgetAtExit(model: number): void {
  models.delete(model);
  if (models.size === 0) process.off("exit", cancelAll);
}
