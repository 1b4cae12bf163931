import { describe, expect, it } from "vitest";
import { RateMeter } from "../../dist/cli/progress.js";

describe("RateMeter", () => {
  it("knows no rate before two samples at different times", () => {
    const meter = new RateMeter();
    expect(meter.bytesPerSecond).toBe(0);
    meter.add(100, 1);
    expect(meter.bytesPerSecond).toBe(0);
    meter.add(200, 1);
    expect(meter.bytesPerSecond).toBe(0);
  });

  it("follows the last seconds only", () => {
    const meter = new RateMeter(5);
    for (let second = 0; second <= 10; second++) meter.add(second * 100, second);
    expect(meter.bytesPerSecond).toBe(100);
    for (let second = 11; second <= 20; second++) meter.add(1000 + (second - 10) * 10, second);
    expect(meter.bytesPerSecond).toBe(10);
  });

  it("keeps a rate when samples are further apart than its window", () => {
    const meter = new RateMeter(5);
    meter.add(0, 0);
    meter.add(600, 60);
    expect(meter.bytesPerSecond).toBe(10);
  });
});
