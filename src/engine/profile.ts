/** Where the time of a model's passes went, from the sums of its trace. */
import { native } from "../native/binding.js";
import type { NativeSum } from "../native/types.js";

/** Ops of one kind: "matmul bf16", "attention", "norm" and so on. */
export interface ActivityProfile {
  activity: string;
  count: number;
  seconds: number;
  /** Weights, keys and values that it read. */
  bytes: number;
  /** Additions and multiplications. */
  operations: number;
}

/** One kind of stage, all layers together. The seconds of `activities` and the four waits add up to `seconds`. */
export interface StageProfile {
  /** "embed", "attention", "mlp", "moe", "expert" or "head"; "" is what belongs to none. */
  stage: string;
  seconds: number;
  /** Ops on the compute stream, the longest first. */
  activities: ActivityProfile[];
  /** The compute stream did nothing for want of bytes from disk, of their copy to the device, or of anything to do. */
  diskWaitSeconds: number;
  copyWaitSeconds: number;
  idleSeconds: number;
  /** Bytes read for it, and the seconds in which at least one read was in flight: beside the others, not after them. */
  diskBytes: number;
  diskSeconds: number;
  /** Bytes that were decompressed for it, and the seconds that threads spent on that, beside the others too. */
  decodedBytes: number;
  decodeSeconds: number;
  /** Bytes of the KV cache that came from its file and went there, and the seconds that took, beside the others too. */
  kvBytesRead: number;
  kvReadSeconds: number;
  kvBytesWritten: number;
  kvWriteSeconds: number;
}

export interface PhaseProfile {
  passes: number;
  /** That went through these passes. */
  tokens: number;
  /** Of passes and of JavaScript between them. */
  seconds: number;
  passSeconds: number;
  /** Between passes: layerstream's own JavaScript, the program that takes the tokens, and getting to and fro. */
  engineSeconds: number;
  callerSeconds: number;
  switchSeconds: number;
  stages: StageProfile[];
}

export interface Profile {
  /** Passes of requests for several tokens, the first of which also loads what is held; and those of one token. */
  prompt: PhaseProfile;
  decode: PhaseProfile;
}

/** Of a model created with a trace. `kinds`: names of its plans; plans of one name are taken together. */
export function readProfile(model: number, kinds: readonly string[]): Profile {
  const addon = native();
  const names = addon.activityNames();
  const phase = (prompt: boolean) => {
    const { tokens, sums } = addon.phaseSums(model, prompt);
    return summarize(tokens, sums, names, kinds);
  };
  return { prompt: phase(true), decode: phase(false) };
}

/** Exported for tests. */
export function summarize(
  tokens: number,
  sums: readonly NativeSum[],
  names: readonly string[],
  kinds: readonly string[],
): PhaseProfile {
  const phase: PhaseProfile = {
    passes: 0,
    tokens,
    seconds: 0,
    passSeconds: 0,
    engineSeconds: 0,
    callerSeconds: 0,
    switchSeconds: 0,
    stages: [],
  };
  const stages = new Map<string, StageProfile>();
  for (const sum of sums) {
    const activity = names[sum.activity] ?? "";
    switch (activity) {
      case "pass":
        phase.passes += sum.count;
        phase.passSeconds += sum.seconds;
        break;
      case "engine":
        phase.engineSeconds += sum.seconds;
        break;
      case "caller":
        phase.callerSeconds += sum.seconds;
        break;
      case "switch":
        phase.switchSeconds += sum.seconds;
        break;
      default:
        addToStage(stageNamed(stages, kinds[sum.kind] ?? ""), activity, sum);
    }
  }
  phase.seconds = phase.passSeconds + phase.engineSeconds + phase.callerSeconds + phase.switchSeconds;
  phase.stages = [...stages.values()];
  for (const { activities } of phase.stages) activities.sort((a, b) => b.seconds - a.seconds);
  return phase;
}

function stageNamed(stages: Map<string, StageProfile>, stage: string): StageProfile {
  let profile = stages.get(stage);
  if (!profile) {
    profile = {
      stage,
      seconds: 0,
      activities: [],
      diskWaitSeconds: 0,
      copyWaitSeconds: 0,
      idleSeconds: 0,
      diskBytes: 0,
      diskSeconds: 0,
      decodedBytes: 0,
      decodeSeconds: 0,
      kvBytesRead: 0,
      kvReadSeconds: 0,
      kvBytesWritten: 0,
      kvWriteSeconds: 0,
    };
    stages.set(stage, profile);
  }
  return profile;
}

function addToStage(stage: StageProfile, activity: string, { count, seconds, bytes, operations }: NativeSum): void {
  switch (activity) {
    case "read":
      stage.diskBytes += bytes;
      stage.diskSeconds += seconds;
      return;
    case "decode":
      stage.decodedBytes += bytes;
      stage.decodeSeconds += seconds;
      return;
    case "read KV":
      stage.kvBytesRead += bytes;
      stage.kvReadSeconds += seconds;
      return;
    case "write KV":
      stage.kvBytesWritten += bytes;
      stage.kvWriteSeconds += seconds;
      return;
    // The pass thread and the readers: the compute stream's stalls say what came of it.
    case "wait for disk":
    case "wait for compute":
    case "wait for space":
      return;
    case "disk stall":
      stage.diskWaitSeconds += seconds;
      break;
    case "copy stall":
      stage.copyWaitSeconds += seconds;
      break;
    case "idle":
      stage.idleSeconds += seconds;
      break;
    default: {
      const known = stage.activities.find((other) => other.activity === activity);
      if (!known) stage.activities.push({ activity, count, seconds, bytes, operations });
      else {
        known.count += count;
        known.seconds += seconds;
        known.bytes += bytes;
        known.operations += operations;
      }
    }
  }
  stage.seconds += seconds;
}
