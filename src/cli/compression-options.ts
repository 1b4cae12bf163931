import { type Command, Option } from "commander";
import { COMPRESSIONS, type CompressionSettings } from "../quant/registry.js";

export interface CompressionOptions extends Partial<CompressionSettings> {
  requantize?: boolean;
}

/** `when` ends the sentence that explains --compression. */
export function addCompressionOptions(command: Command, when: string): Command {
  return command
    .addOption(new Option("--compression <kind>", `how weights are stored${when}`).choices(COMPRESSIONS))
    .addOption(new Option("--embedding-compression <kind>", "the same for the embedding").choices(COMPRESSIONS))
    .addOption(new Option("--head-compression <kind>", "the same for the head").choices(COMPRESSIONS))
    .option("--requantize", "let --compression quantize a checkpoint that comes quantized");
}
