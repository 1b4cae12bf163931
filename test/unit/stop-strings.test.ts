import { describe, expect, it } from "vitest";
import { StopStrings } from "../../dist/engine/stop-strings.js";

function feed(stops: string[], pieces: string[]): { pieces: string[]; stopped: boolean } {
  const stopStrings = new StopStrings(stops);
  const out = pieces.map((piece) => stopStrings.push(piece));
  out.push(stopStrings.flush());
  return { pieces: out, stopped: stopStrings.stopped };
}

describe("StopStrings", () => {
  it("lets text pass that no stop string begins", () => {
    expect(feed(["END"], ["one ", "two"])).toEqual({ pieces: ["one ", "two", ""], stopped: false });
  });

  it("holds back what may begin one, and gives it out when it does not", () => {
    expect(feed(["END"], ["oneE", "N", "x"])).toEqual({ pieces: ["one", "", "ENx", ""], stopped: false });
    expect(feed(["END"], ["one EN"])).toEqual({ pieces: ["one ", "EN"], stopped: false });
  });

  it("ends before the first, across pieces", () => {
    expect(feed(["END", "STOP"], ["one S", "TOP two END"])).toEqual({ pieces: ["one ", "", ""], stopped: true });
    expect(feed(["b", "ab"], ["xab"])).toEqual({ pieces: ["x", ""], stopped: true });
  });

  it("finds one whose beginning repeats", () => {
    expect(feed(["aab"], ["a", "a", "a", "b", "c"]).pieces.join("")).toBe("a");
  });
});
