import { describe, expect, it } from "vitest";
import { placeStages } from "../../dist/engine/placement.js";

const gib = 2 ** 30;
const stage = (bytes: number, kind: { gathered?: boolean; routed?: boolean } = {}) => ({
  bytes,
  chunks: [bytes],
  gathered: false,
  routed: false,
  share: 1,
  ...kind,
});
/** An embedding, three layers of attention and MLP, a head. */
const stages = [stage(900, { gathered: true }), ...[1, 2, 3].flatMap(() => [stage(100), stage(300)]), stage(200)];
const eligible = [false, false, true, false, true, false, true, false];
const slowCopies = { copyBytesPerSecond: 10 * gib, hostBytesPerSecond: 40 * gib };
const onProcessor = (deviceBytes: number) =>
  placeStages({ stages, eligible, deviceBytes }, "auto", slowCopies).onProcessor;

describe("placement of stages", () => {
  it("is the device where copies are faster than products on the processor", () => {
    const rates = { copyBytesPerSecond: 50 * gib, hostBytesPerSecond: 40 * gib };
    const { onProcessor: placed, reason } = placeStages({ stages, eligible, deviceBytes: 0 }, "auto", rates);
    expect(placed).not.toContain(true);
    expect(reason).toMatch(
      /^All stages run on the device: copying a GiB of weights takes .+, multiplying it on the processor .+\.$/,
    );
  });

  it("is the processor otherwise, for what the device does not hold beside the other stages", () => {
    expect(onProcessor(0)).toEqual(eligible);
    expect(onProcessor(799)).toEqual(eligible);
    expect(onProcessor(800)).toEqual([false, false, true, false, true, false, false, false]);
    expect(onProcessor(1100)).toEqual([false, false, true, false, false, false, false, false]);
    expect(onProcessor(1399)).toEqual([false, false, true, false, false, false, false, false]);
  });

  it("is the device where that holds everything but an embedding, of which rows are read", () => {
    expect(onProcessor(1400)).not.toContain(true);
    expect(placeStages({ stages, eligible, deviceBytes: 1400 }, "cpu").reason).toBe("The device holds all stages.");
  });

  it("is what was asked for", () => {
    expect(placeStages({ stages, eligible, deviceBytes: 0 }, "device", slowCopies).onProcessor).not.toContain(true);
    expect(placeStages({ stages, eligible, deviceBytes: 0 }, "cpu").onProcessor).toEqual(eligible);
  });

  it("is the device for models of which the processor takes no stage", () => {
    const none = eligible.map(() => false);
    expect(placeStages({ stages, eligible: none, deviceBytes: 0 }, "auto", slowCopies).reason).toMatch(/takes none/);
  });
});
