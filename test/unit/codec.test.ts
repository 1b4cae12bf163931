import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { native } from "../../dist/native/binding.js";
import type { ElementFormat } from "../../dist/native/types.js";
import { FORMAT_NAMES, formatOf, isElementFormat } from "../../dist/quant/registry.js";
import {
  code4,
  crc32c,
  dequantizeRow4,
  dequantizeRow8,
  halfAbove,
  halfToNumber,
  NORMAL_FLOAT_4,
  normalNumbers,
  quantizeRow8,
  scale4,
} from "../helpers/weight-format.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const bindingUrl = pathToFileURL(path.join(root, "dist/native/binding.js")).href;
const COLUMNS = [1, 17, 64, 100, 129, 320];
const SOURCES: readonly ElementFormat[] = ["f32", "f16", "bf16"];

/** Bytes of numbers in an element format (rounded towards zero), and the exact values of these bytes. */
function encode(format: ElementFormat, numbers: readonly number[]): { bytes: Uint8Array; values: number[] } {
  const size = format === "f32" ? 4 : 2;
  const view = new DataView(new ArrayBuffer(numbers.length * size));
  const scratch = new DataView(new ArrayBuffer(4));
  const values = numbers.map((number, i) => {
    scratch.setFloat32(0, number);
    const bits = scratch.getUint32(0);
    if (format === "f32") {
      view.setUint32(4 * i, bits, true);
      return Math.fround(number);
    }
    if (format === "bf16") {
      view.setUint16(2 * i, bits >>> 16, true);
      scratch.setUint32(0, bits & 0xffff0000);
      return scratch.getFloat32(0);
    }
    const half = halfAbove(Math.abs(number)) | (number < 0 ? 0x8000 : 0);
    view.setUint16(2 * i, half, true);
    return halfToNumber(half);
  });
  return { bytes: new Uint8Array(view.buffer), values };
}

function rowView(bytes: Uint8Array, row: number, rowBytes: number): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset + row * rowBytes, rowBytes);
}

function bytesOf(floats: Float32Array): Uint8Array {
  return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
}

describe("crc32c", () => {
  it("gives the published values", () => {
    expect(native().crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(native().crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(native().crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    expect(native().crc32c(new Uint8Array(0))).toBe(0);
  });

  it("agrees with the definition at every length around its inner blocks and at odd addresses", () => {
    const data = Uint8Array.from(normalNumbers(7000, 100, 5), (value) => value & 255);
    for (const length of [1, 7, 8, 9, 63, 3071, 3072, 3073, 3080, 6144, 6999]) {
      for (const offset of [0, 1]) {
        const part = data.subarray(offset, offset + length);
        expect(native().crc32c(part)).toBe(crc32c(part));
      }
    }
  });
});

describe("rowBytes", () => {
  it("follows the layout of each format", () => {
    const { rowBytes } = native();
    expect(rowBytes("f32", 100, 0)).toBe(400);
    expect(rowBytes("bf16", 100, 0)).toBe(200);
    expect(rowBytes("8bit", 100, 32)).toBe(128 + 8);
    expect(rowBytes("8bit", 1, 128)).toBe(130);
    expect(rowBytes("4bit", 64, 64)).toBe(34);
    expect(rowBytes("4bit", 65, 64)).toBe(68);
    expect(rowBytes("8bit", 2147483647, 65536)).toBe(32768 * 65536 + 65536);
    expect(rowBytes("uint4", 128, 128)).toBe(64 + 2 + 1);
    expect(rowBytes("uint4", 72, 32)).toBe(64 + 3 * 2 + 3);
    expect(rowBytes("uint3", 72, 72)).toBe(48 + 2 + 1);
    expect(rowBytes("uint2", 64, 16)).toBe(16 + 4 * 2 + 4);
    expect(rowBytes("uint8", 65, 64)).toBe(128 + 2 * 2 + 2);
    expect(rowBytes("fp8", 130, 128)).toBe(130 + 2 * 4);
    expect(rowBytes("mxfp4", 96, 32)).toBe(64 + 3);
    expect(rowBytes("nf4", 100, 64)).toBe(64 + 2 * 4);
    expect(rowBytes("q8_0", 96, 32)).toBe(3 * 34);
    expect(rowBytes("q4_0", 32, 32)).toBe(18);
    expect(rowBytes("q4_1", 32, 32)).toBe(20);
    expect(rowBytes("q5_0", 32, 32)).toBe(22);
    expect(rowBytes("q5_1", 32, 32)).toBe(24);
    expect(rowBytes("q2_k", 512, 256)).toBe(2 * 84);
    expect(rowBytes("q3_k", 256, 256)).toBe(110);
    expect(rowBytes("q4_k", 256, 256)).toBe(144);
    expect(rowBytes("q5_k", 256, 256)).toBe(176);
    expect(rowBytes("q6_k", 256, 256)).toBe(210);
  });

  it("agrees with the formats of the registry, and so do the blocks that both take", () => {
    for (const name of FORMAT_NAMES) {
      const format = formatOf(name);
      for (const columns of [1, 32, 64, 72, 256, 700, 1280, 5120]) {
        for (const block of [1, 16, 32, 48, 64, 72, 128, 256, 5120, 65536]) {
          if (!format.blockFits(columns, isElementFormat(name) ? undefined : block)) {
            expect(() => native().rowBytes(name, columns, block), `${name} ${columns} ${block}`).toThrow(RangeError);
          } else {
            expect(native().rowBytes(name, columns, block), `${name} ${columns} ${block}`).toBe(
              format.rowBytes(columns, block),
            );
          }
        }
      }
    }
  });
});

describe("quantize", () => {
  const rows = 3;

  for (const source of SOURCES) {
    it(`${source} to 8bit writes the bytes of the scalar definition`, () => {
      for (const columns of COLUMNS) {
        for (const block of [32, 64, 128, 1024]) {
          const { bytes, values } = encode(source, normalNumbers(rows * columns, 0.7, columns));
          const rowBytes = native().rowBytes("8bit", columns, block);
          const output = new Uint8Array(rows * rowBytes).fill(0xee);
          expect(native().quantize(source, bytes, rows, columns, "8bit", block, output)).toBe(true);
          const decoded = new Float32Array(rows * columns);
          native().dequantize("8bit", output, rows, columns, block, decoded);
          for (let row = 0; row < rows; row++) {
            const weights = values.slice(row * columns, (row + 1) * columns);
            expect(output.subarray(row * rowBytes, (row + 1) * rowBytes)).toEqual(quantizeRow8(weights, block));
            dequantizeRow8(rowView(output, row, rowBytes), columns, block).forEach((expected, i) => {
              expect(decoded[row * columns + i]).toBeCloseTo(expected, 6);
              expect(Math.abs(expected - (weights[i] ?? 0))).toBeLessThan(2 ** -7 * 3);
            });
          }
        }
      }
    });

    it(`${source} to 4bit writes nearest levels, and scales better than the largest magnitude`, () => {
      let searched = 0;
      let plain = 0;
      for (const columns of COLUMNS) {
        const { bytes, values } = encode(source, normalNumbers(rows * columns, 0.02, columns + 1));
        const rowBytes = native().rowBytes("4bit", columns, 64);
        const output = new Uint8Array(rows * rowBytes).fill(0xee);
        expect(native().quantize(source, bytes, rows, columns, "4bit", 64, output)).toBe(true);
        const decoded = new Float32Array(rows * columns);
        native().dequantize("4bit", output, rows, columns, 64, decoded);
        for (let row = 0; row < rows; row++) {
          const weights = values.slice(row * columns, (row + 1) * columns);
          const view = rowView(output, row, rowBytes);
          const expected = dequantizeRow4(view, columns);
          for (let i = 0; i < Math.ceil(columns / 64) * 64; i++) {
            const weight = weights[i];
            if (weight === undefined) {
              expect(code4(view, i)).toBe(7);
              continue;
            }
            expect(decoded[row * columns + i]).toBe(Math.fround(expected[i] ?? 0));
            const scale = scale4(view, columns, i);
            const distance = Math.abs(weight - (expected[i] ?? 0));
            const least = Math.min(...NORMAL_FLOAT_4.map((level) => Math.abs(weight - level * scale)));
            expect(distance).toBeLessThanOrEqual(least + 1e-6 * Math.abs(scale));
            const block = weights.slice(Math.floor(i / 64) * 64, Math.floor(i / 64) * 64 + 64);
            const magnitude = Math.max(...block.map(Math.abs));
            searched += distance ** 2;
            plain += Math.min(...NORMAL_FLOAT_4.map((level) => (weight - level * magnitude) ** 2));
          }
        }
      }
      expect(searched).toBeLessThan(0.88 * plain);
      expect(searched).toBeGreaterThan(0.5 * plain);
    });

    it(`${source} decodes to its exact values`, () => {
      const { bytes, values } = encode(source, [...normalNumbers(95, 3, 8), 0, -0, 1e-6, -65000, 2 ** -14]);
      const decoded = new Float32Array(100);
      native().dequantize(source, bytes, 4, 25, 0, decoded);
      expect([...decoded]).toEqual(values);
    });
  }

  it("gives zero blocks a scale of zero", () => {
    for (const format of ["8bit", "4bit"] as const) {
      const output = new Uint8Array(native().rowBytes(format, 64, 64)).fill(0xee);
      expect(native().quantize("f32", new Uint8Array(256), 1, 64, format, 64, output)).toBe(true);
      const expected = new Uint8Array(output.length).fill(format === "4bit" ? 0x77 : 0);
      expected.fill(0, output.length - 2);
      expect(output).toEqual(expected);
    }
  });

  it("refuses NaN, infinities and what float16 scales cannot hold", () => {
    for (const format of ["8bit", "4bit"] as const) {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 65536, -1e38]) {
        const weights = new Float32Array(130).fill(0.25);
        weights[129] = bad;
        const output = new Uint8Array(native().rowBytes(format, 130, 64));
        expect(native().quantize("f32", bytesOf(weights), 1, 130, format, 64, output)).toBe(false);
        weights[129] = 65504;
        expect(native().quantize("f32", bytesOf(weights), 1, 130, format, 64, output)).toBe(true);
      }
    }
  });

  it("reads and writes at odd addresses, and nothing outside its rows", () => {
    const { bytes } = encode("bf16", normalNumbers(200, 1, 3));
    const source = new Uint8Array(401);
    source.set(bytes, 1);
    for (const format of ["8bit", "4bit"] as const) {
      const size = 2 * native().rowBytes(format, 100, 64);
      const expected = new Uint8Array(size);
      native().quantize("bf16", bytes, 2, 100, format, 64, expected);
      const output = new Uint8Array(size + 6).fill(0xcd);
      expect(native().quantize("bf16", source.subarray(1), 2, 100, format, 64, output.subarray(3))).toBe(true);
      expect(output.subarray(3, 3 + size)).toEqual(expected);
      expect([...output.subarray(0, 3), ...output.subarray(3 + size)]).toEqual(new Array(6).fill(0xcd));
    }
  });
});

describe("dequantize", () => {
  it("decodes uint4: codes, then float16 scales, then zeros", () => {
    const row = new Uint8Array(native().rowBytes("uint4", 48, 32));
    row[0] = 0x2f; // columns 0 and 16
    row[16] = 0x05; // columns 32 and 48, which does not exist
    row.set([0x00, 0x38, 0x00, 0xc0], 32); // 0.5 and -2
    row.set([8, 3], 36);
    const output = new Float32Array(48);
    native().dequantize("uint4", row, 1, 48, 32, output);
    expect([output[0], output[1], output[16], output[32], output[47]]).toEqual([3.5, -4, -3, -4, 6]);
  });

  it("decodes ggml's q4_0 and q8_0 blocks", () => {
    const output = new Float32Array(32);
    native().dequantize("q4_0", Uint8Array.from([0x00, 0x3c, 0x0f, ...Array(15).fill(0x88)]), 1, 32, 32, output);
    expect([output[0], output[1], output[16], output[31]]).toEqual([7, 0, -8, 0]);
    native().dequantize("q8_0", Uint8Array.from([0x00, 0x34, ...Array(31).fill(0), 0x80]), 1, 32, 32, output);
    expect([output[0], output[31]]).toEqual([0, -32]);
  });

  it("decodes fp8 with one scale a row and mxfp4 with one a block", () => {
    const fp8 = Uint8Array.from([0x7e, 0x81, 0xc0, 0, 0, 0, 0x40]); // 448, -2^-9, -2; scale 2
    const values = new Float32Array(3);
    native().dequantize("fp8", fp8, 1, 3, 3, values);
    expect([...values]).toEqual([896, -(2 ** -8), -4]);
    const mxfp4 = new Uint8Array(native().rowBytes("mxfp4", 33, 32));
    mxfp4.set([0xf2, 0x00]); // columns 0 and 16: 1 and -6
    mxfp4[16] = 0x07; // column 32: 6
    mxfp4.set([128, 0], 32);
    const columns = new Float32Array(33);
    native().dequantize("mxfp4", mxfp4, 1, 33, 32, columns);
    expect([columns[0], columns[16], columns[32]]).toEqual([2, -12, Math.fround(6 * 2 ** -127)]);
  });
});

describe("arguments", () => {
  const bytes = new Uint8Array(4096);
  const floats = new Float32Array(64);
  const wrong: [string, RegExp, () => unknown][] = [
    ["no data", /`data` must be a Uint8Array/, () => Reflect.apply(native().crc32c, undefined, [])],
    ["a string as data", /`data` must be/, () => Reflect.apply(native().crc32c, undefined, ["123456789"])],
    ["floats as bytes", /`data` must be/, () => Reflect.apply(native().crc32c, undefined, [floats])],
    [
      "an unknown format",
      /`format` must be one of f32/,
      () => Reflect.apply(native().rowBytes, undefined, ["q5", 1, 1]),
    ],
    ["no columns", /`columns` must be an integer from 1/, () => native().rowBytes("f32", 0, 1)],
    ["2^53 columns", /`columns` must be/, () => native().rowBytes("f32", 2 ** 53, 1)],
    ["half a column", /not 1\.5/, () => native().rowBytes("f32", 1.5, 1)],
    ["NaN columns", /not NaN/, () => native().rowBytes("f32", Number.NaN, 1)],
    ["8bit without a block", /`block` must be an integer from 32/, () => native().rowBytes("8bit", 64, 0)],
    ["8bit in blocks of 48", /power of two, not 48/, () => native().rowBytes("8bit", 64, 48)],
    ["4bit in blocks of 32", /`block` must be/, () => native().rowBytes("4bit", 64, 32)],
    ["uint4 in blocks of 40", /multiple of 16 or at least/, () => native().rowBytes("uint4", 64, 40)],
    ["part of a super-block", /`columns` must be a multiple of 256/, () => native().rowBytes("q4_k", 320, 256)],
    ["negative rows", /`rows` must be/, () => native().quantize("f32", bytes, -1, 64, "8bit", 64, bytes)],
    ["a short source", /`source` has 4096 bytes/, () => native().quantize("bf16", bytes, 33, 64, "4bit", 64, bytes)],
    [
      "a short output",
      /`output` has 65 bytes/,
      () => native().quantize("f32", bytes, 1, 64, "8bit", 64, bytes.subarray(0, 65)),
    ],
    [
      "rows whose bytes pass 2^64",
      /too few/,
      () => native().quantize("f32", bytes, 2147483647, 2147483647, "8bit", 65536, bytes),
    ],
    [
      "an unknown source",
      /`sourceFormat`/,
      () => Reflect.apply(native().quantize, undefined, ["8bit", bytes, 1, 1, "8bit", 1, bytes]),
    ],
    [
      "a target without scales",
      /`format` must be one of 8bit, 4bit/,
      () => Reflect.apply(native().quantize, undefined, ["f32", bytes, 1, 1, "f16", 1, bytes]),
    ],
    ["short data", /`data` has 33 bytes/, () => native().dequantize("4bit", bytes.subarray(0, 33), 1, 64, 64, floats)],
    ["a short result", /`output` has 256 bytes/, () => native().dequantize("4bit", bytes, 1, 65, 64, floats)],
    [
      "bytes as a result",
      /`output` must be a Float32Array/,
      () => Reflect.apply(native().dequantize, undefined, ["f32", bytes, 1, 1, 1, bytes]),
    ],
  ];

  for (const [name, message, call] of wrong) {
    it(`rejects ${name}`, () => {
      expect(call).toThrow(RangeError);
      expect(call).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringMatching(message) }),
      );
    });
  }
});

describe("loading", () => {
  it("works in several worker threads at once", async () => {
    const code = `const { parentPort, workerData } = require("node:worker_threads");
      import(workerData).then(({ native }) => parentPort.postMessage(native().crc32c(Buffer.from("123456789"))));`;
    const workers = Array.from({ length: 3 }, () => new Worker(code, { eval: true, workerData: bindingUrl }));
    const answers = await Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
    await Promise.all(workers.map((worker) => worker.terminate()));
    expect(answers).toEqual([0xe3069283, 0xe3069283, 0xe3069283]);
  });

  /** What loading prints in a package that has these files besides the built ones. */
  const loadElsewhere = (files: Record<string, string>) => {
    const directory = mkdtempSync(path.join(tmpdir(), "layerstream-binding-"));
    try {
      for (const file of ["dist/errors.js", "dist/native/binding.js", "package.json"]) {
        cpSync(path.join(root, file), path.join(directory, file));
      }
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
        writeFileSync(path.join(directory, name), text);
      }
      const script = `import { native } from ${JSON.stringify(pathToFileURL(path.join(directory, "dist/native/binding.js")).href)};
        try { native(); } catch (error) { console.log(error.name, error.code, error.message); }`;
      return execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    } finally {
      rmSync(directory, { recursive: true });
    }
  };

  it("names the command that builds a missing addon", () => {
    const output = loadElsewhere({});
    expect(output).toMatch(/^LayerstreamError NATIVE_ADDON_MISSING .*layerstream\.node.*npx layerstream build\n$/);
  });

  it("refuses an addon of another version", () => {
    const package_ = `node_modules/@layerstream/${process.platform}-${process.arch}/index.js`;
    const output = loadElsewhere({ [package_]: "exports.cancelModel = exports.crc32c = () => 0;" });
    expect(output).toMatch(/^LayerstreamError NATIVE_ADDON_MISSING .*no \w+\. .*npx layerstream build\n$/);
  });

  const quantizeElsewhere = (simd: string) => {
    const script = `import { native } from ${JSON.stringify(bindingUrl)};
      const weights = Float32Array.from({ length: 6400 }, (_, i) => Math.sin(i * i) * (1 + i % 7));
      const output = new Uint8Array(native().rowBytes("4bit", 6400, 64));
      try {
        native().quantize("f32", new Uint8Array(weights.buffer), 1, 6400, "4bit", 64, output);
        console.log(native().crc32c(output));
      } catch (error) {
        console.log(error.code + ": " + error.message);
      }`;
    const environment = { ...process.env, LAYERSTREAM_SIMD: simd };
    return execFileSync(process.execPath, ["--input-type=module", "-e", script], {
      env: environment,
      encoding: "utf8",
    }).trim();
  };

  it("quantizes to the same bytes with scalar code as with the fastest", () => {
    expect(quantizeElsewhere("scalar")).toMatch(/^\d+$/);
    expect(quantizeElsewhere("scalar")).toBe(quantizeElsewhere(""));
  });

  it("refuses an instruction set that it does not know, by name", () => {
    expect(quantizeElsewhere("sse9")).toMatch(/^INVALID_ARGUMENT: LAYERSTREAM_SIMD=sse9 .*scalar/);
  });
});
