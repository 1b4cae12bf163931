// Writes the OpenCL kernels of a folder as the table `kSources` of native/opencl/programs.h: embed-kernels.cjs FOLDER OUTPUT
const { readdirSync, readFileSync, writeFileSync } = require("node:fs");
const path = require("node:path");

const [folder, output] = process.argv.slice(2);
const root = path.resolve(__dirname, "..");
const header = path.join(root, "native", "opencl", "programs.h").replaceAll("\\", "/");
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".cl"))
  .sort();
/** Numbers, as some compilers take no long strings. */
const arrays = names.map((name, index) => {
  const bytes = [...readFileSync(path.join(folder, name)), 0];
  return `const char kText${index}[] = {${bytes.map((byte) => (byte < 128 ? byte : byte - 256)).join(",")}};`;
});
const rows = names.map((name, index) => `    {"${name}", kText${index}, sizeof kText${index} - 1},`);
writeFileSync(
  output,
  [
    `#include "${header}"`,
    "namespace layerstream::opencl {",
    "namespace {",
    ...arrays,
    "}  // namespace",
    "const Source kSources[] = {",
    ...rows,
    "    {nullptr, nullptr, 0},",
    "};",
    "}  // namespace layerstream::opencl",
    "",
  ].join("\n"),
);
