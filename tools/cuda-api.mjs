#!/usr/bin/env node
/**
 * Compares native/cuda/api.h, which is written from NVIDIA's documentation so that a build needs no toolkit, with the toolkit's
 * own cuda.h: the type of each function behind its versioned symbol, the value of each constant, the layout of each struct.
 * Compiled and not run; says so where there is no nvcc.
 *
 *   node tools/cuda-api.mjs
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const { findCompiler } = createRequire(import.meta.url)("./embed-cuda-kernels.cjs");

/** What both call the same; the struct of the graphs' functions has a version in cuda.h. */
const structs = [
  { name: "CUmemLocation", fields: ["type", "id"] },
  {
    name: "CUmemAllocationProp",
    fields: ["type", "requestedHandleTypes", "location", "win32HandleMetaData", "allocFlags", "allocFlags.usage"],
  },
  { name: "CUmemAccessDesc", fields: ["location", "flags"] },
  {
    name: "CUDA_KERNEL_NODE_PARAMS",
    theirs: "CUDA_KERNEL_NODE_PARAMS_v1",
    fields: [
      ...["func", "gridDimX", "gridDimY", "gridDimZ", "blockDimX", "blockDimY", "blockDimZ", "sharedMemBytes"],
      ...["kernelParams", "extra"],
    ],
  },
];

/** A program that compiles if all is the same. cuda.h declares every version of a function where it is told to. */
function comparison(header) {
  const functions = [...header.matchAll(/each\((\w+),\s*"(\w+)"/g)].map(([, name, symbol]) => ({ name, symbol }));
  const constants = [...header.matchAll(/^constexpr \w+ (CU\w+) =/gm)].map(([, name]) => name);
  const handles = [...header.matchAll(/^using (CU\w+) = struct \w+\*;/gm)].map(([, name]) => name);
  for (const found of [functions, constants, handles])
    if (found.length === 0) throw new Error("native/cuda/api.h is not written as tools/cuda-api.mjs reads it.");
  const twins = [
    ...handles.map((name) => [`std::remove_pointer_t<ours::${name}>`, `std::remove_pointer_t<::${name}>`]),
    ...structs.map(({ name, theirs = name }) => [`ours::${name}`, `::${theirs}`]),
  ];
  return [
    '#include "native/cuda/api.h"',
    '#include "test/native/cuda_api/same_type.h"',
    "#include <cstddef>",
    // Some of theirs are macros.
    ...constants.map((name) => `constexpr auto our_${name} = layerstream::cuda::${name};`),
    "#define __CUDA_API_VERSION_INTERNAL",
    "#include <cuda.h>",
    "namespace ours = layerstream::cuda;",
    "using namespace layerstream::test;",
    ...twins.map(([our, their]) => `template <> constexpr bool layerstream::test::kTwins<${our}, ${their}> = true;`),
    ...constants.map(
      (name) => `static_assert(static_cast<long long>(our_${name}) == static_cast<long long>(${name}));`,
    ),
    ...structs.flatMap(({ name, theirs = name, fields }) => [
      `static_assert(sizeof(ours::${name}) == sizeof(::${theirs}) && alignof(ours::${name}) == alignof(::${theirs}));`,
      ...fields.map((field) => `static_assert(offsetof(ours::${name}, ${field}) == offsetof(::${theirs}, ${field}));`),
    ]),
    ...functions.map(
      ({ name, symbol }) => `static_assert(SameFunction<decltype(ours::Api::${name}), decltype(&::${symbol})>::value);`,
    ),
    // What is not the same is seen.
    "static_assert(!SameFunction<decltype(ours::Api::cuMemFree), decltype(&::cuMemFree)>::value);",
    "static_assert(!SameFunction<decltype(ours::Api::cuInit), decltype(&::cuDriverGetVersion)>::value);",
    "static_assert(!SameFunction<decltype(ours::Api::cuEventDestroy), decltype(&::cuStreamDestroy_v2)>::value);",
    "",
  ].join("\n");
}

const found = findCompiler();
if (found === undefined) {
  console.log("cuda-api: skipped: there is no nvcc");
  process.exit(0);
}
const source = comparison(readFileSync(path.join(root, "native", "cuda", "api.h"), "utf8"));
const options = ["-std=c++20", "-x", "c++", "-c", "-I", root, "-o", "/dev/null", "-"];
const { status, stderr } = spawnSync(found.compiler, options, { input: source, encoding: "utf8" });
if (status !== 0) {
  console.error(`cuda-api: native/cuda/api.h is not as cuda.h of CUDA ${found.version} has it:\n${stderr}`);
  process.exit(1);
}
console.log(`cuda-api: ${source.split("static_assert").length - 1} comparisons with cuda.h of CUDA ${found.version}`);
