import { describe, expect, it } from "vitest";
import { LayerstreamError } from "../../dist/errors.js";
import { formatBytes, formatCount, formatDuration, formatNumber, formatRate, parseBytes } from "../../dist/units.js";

describe("parseBytes", () => {
  it.each([
    ["4GiB", 4 * 2 ** 30],
    ["4gib", 4 * 2 ** 30],
    ["900MB", 900e6],
    ["1.5g", 1.5 * 2 ** 30],
    ["1.5 G", 1.5 * 2 ** 30],
    [".5k", 512],
    ["2TB", 2e12],
    ["3TiB", 3 * 2 ** 40],
    ["64KB", 64e3],
    ["4096", 4096],
    ["17b", 17],
    [12345, 12345],
  ])("reads %s", (text, bytes) => {
    expect(parseBytes(text, "--memory")).toBe(bytes);
  });

  it.each([
    "",
    "GiB",
    "4 GiB x",
    "-1",
    "4XB",
    "1e9",
    "0",
    "0.2",
    "NaN",
    "99999999TB",
    "4 Gi B",
    Number.NaN,
    -5,
    0,
    Number.POSITIVE_INFINITY,
  ])("refuses %j", (text) => {
    const act = () => parseBytes(text, "--memory");
    expect(act).toThrow(LayerstreamError);
    expect(act).toThrow(/^--memory is .*not a size\. Write for example 4GiB/);
  });
});

describe("formats", () => {
  it.each([
    [0, "0 B"],
    [1, "1 B"],
    [999, "999 B"],
    [1000, "0.98 KiB"],
    [1024, "1.00 KiB"],
    [10 * 1024, "10.0 KiB"],
    [2 ** 30, "1.00 GiB"],
    [5.37 * 2 ** 30, "5.37 GiB"],
    [123.4 * 2 ** 20, "123 MiB"],
    [2 ** 53, "8.00 PiB"],
  ])("bytes: %d", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [3.5e9, "3.50 GB/s"],
    [999.6e6, "1.00 GB/s"],
    [0, "0 B/s"],
    [Number.NaN, "-/s"],
  ])("rate: %d", (rate, text) => {
    expect(formatRate(rate)).toBe(text);
  });

  it.each([
    [0, "0 s"],
    [0.00064, "640 µs"],
    [0.0009999, "1.00 ms"],
    [0.085, "85.0 ms"],
    [0.9999, "1.00 s"],
    [12.44, "12.4 s"],
    [59.99, "1 min 00 s"],
    [200, "3 min 20 s"],
    [3599.9, "1 h 00 min"],
    [3720, "1 h 02 min"],
    [Number.POSITIVE_INFINITY, "-"],
  ])("duration: %d", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });

  it.each([
    [0.44648, "0.446"],
    [12.34, "12.3"],
    [999.4, "999"],
    [999.6, "1,000"],
    [3942.2, "3,942"],
    [0, "0"],
    [Number.POSITIVE_INFINITY, "-"],
  ])("number: %d", (value, text) => {
    expect(formatNumber(value)).toBe(text);
  });

  it("groups thousands", () => {
    expect(formatCount(1234567)).toBe("1,234,567");
  });
});
