// Prints the files of one folder with a suffix, .cc if none is given, for binding.gyp.
const { existsSync, readdirSync } = require("node:fs");
const [folder, suffix = ".cc"] = process.argv.slice(2);
const files = existsSync(folder) ? readdirSync(folder) : [];
console.log(
  files
    .filter((file) => file.endsWith(suffix))
    .sort()
    .map((file) => `${folder}/${file}`)
    .join("\n"),
);
