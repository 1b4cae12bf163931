// Prints the .cc files of one folder, for binding.gyp.
const { existsSync, readdirSync } = require("node:fs");
const folder = process.argv[2];
const files = existsSync(folder) ? readdirSync(folder) : [];
console.log(
  files
    .filter((file) => file.endsWith(".cc"))
    .sort()
    .map((file) => `${folder}/${file}`)
    .join("\n"),
);
