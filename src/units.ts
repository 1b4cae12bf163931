/** Sizes, rates and durations as people write and read them. */
import { LayerstreamError } from "./errors.js";

const multipliers: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  k: 2 ** 10,
  kib: 2 ** 10,
  m: 2 ** 20,
  mib: 2 ** 20,
  g: 2 ** 30,
  gib: 2 ** 30,
  t: 2 ** 40,
  tib: 2 ** 40,
};

/**
 * Bytes in `text`: "4GiB" and "4g" are 4 x 2^30, "4GB" is 4 x 10^9, "1.5 GiB" and "4096" are fine too. A number is
 * taken as bytes. `name` says in the message where the value came from. Throws INVALID_ARGUMENT for anything that is
 * not a size between 1 byte and 2^53.
 */
export function parseBytes(text: string | number, name: string): number {
  const match = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*$/i.exec(String(text));
  const multiplier = multipliers[match?.[2]?.toLowerCase() ?? ""];
  const bytes = match && multiplier !== undefined ? Math.floor(Number(match[1]) * multiplier) : Number.NaN;
  if (Number.isSafeInteger(bytes) && bytes >= 1) return bytes;
  throw new LayerstreamError("INVALID_ARGUMENT", `${name} is ${JSON.stringify(text)}, which is not a size.`, {
    remedy: "Write for example 4GiB, 900MB or 1.5g.",
  });
}

/** For example "0 B", "812 KiB", "5.37 GiB". */
export function formatBytes(bytes: number): string {
  return withUnit(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
}

/** Decimal, as disks and memory are rated: for example "3.52 GB/s". */
export function formatRate(bytesPerSecond: number): string {
  return `${withUnit(bytesPerSecond, 1000, ["B", "kB", "MB", "GB", "TB"])}/s`;
}

/** For example "640 µs", "85 ms", "12.4 s", "3 min 20 s", "1 h 02 min". */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "-";
  if (seconds === 0) return "0 s";
  if (seconds < 0.9995e-3) return `${threeDigits(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${threeDigits(seconds * 1e3)} ms`;
  if (seconds < 59.95) return `${threeDigits(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** For example "1,234,567". */
export function formatCount(count: number): string {
  return count.toLocaleString("en-US");
}

/** Three significant digits without an exponent: for example "0.446", "12.3", "3,942". */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (Math.abs(value) >= 999.5) return formatCount(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

function withUnit(value: number, base: number, units: readonly string[]): string {
  if (!Number.isFinite(value)) return "-";
  let scaled = value;
  let index = 0;
  // 999.5 would be shown as four digits, so it already belongs to the next unit.
  while (scaled >= Math.min(base, 999.5) && index < units.length - 1) {
    scaled /= base;
    index++;
  }
  return `${index === 0 ? Math.round(scaled) : threeDigits(scaled)} ${units[index]}`;
}

function threeDigits(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  return value.toFixed(value >= 9.995 ? 1 : 2);
}
