// Prints C++ sources for binding.gyp: list-sources.cjs FOLDER [SUFFIX] those of one folder (.cc if no suffix is given),
// list-sources.cjs --all those below native/, but for folders that a target of their own compiles (kernels_*).
const { existsSync, readdirSync, readFileSync, statSync } = require("node:fs");

function filesIn(folder, suffix) {
  const files = existsSync(folder) ? readdirSync(folder) : [];
  return files
    .filter((file) => file.endsWith(suffix))
    .sort()
    .map((file) => `${folder}/${file}`);
}

function sourcesBelow(folder, excluded) {
  const inside = readdirSync(folder)
    .sort()
    .map((name) => `${folder}/${name}`)
    .filter((file) => statSync(file).isDirectory() && !excluded.has(file));
  return [...filesIn(folder, ".cc"), ...inside.flatMap((each) => sourcesBelow(each, excluded))];
}

function foldersOfTargets() {
  const names = JSON.parse(readFileSync("binding.gyp", "utf8")).targets.map(({ target_name: name }) => name);
  return new Set(names.map((name) => name.replace(/^kernels_/, "native/cpu/")));
}

const [folder, suffix = ".cc"] = process.argv.slice(2);
const files = folder === "--all" ? sourcesBelow("native", foldersOfTargets()) : filesIn(folder, suffix);
console.log(files.join("\n"));
