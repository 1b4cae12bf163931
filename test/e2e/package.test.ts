import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { temporaryDirectory } from "./run-cli.js";

const root = path.resolve(import.meta.dirname, "../..");
const checkpoint = path.join(root, "test", "fixtures", "families", "llama");
const { directory: project, remove } = temporaryDirectory();
const npm = process.env.npm_execpath?.endsWith("npm-cli.js") ? [process.execPath, process.env.npm_execpath] : ["npm"];

interface Result {
  exitCode: number;
  stdout: string;
  stderr: string;
}

async function run([program = "", ...args]: string[], cwd: string): Promise<Result> {
  try {
    return { exitCode: 0, ...(await promisify(execFile)(program, args, { cwd })) };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { exitCode: code, stdout, stderr };
  }
}

/** The packages that the lock file has for users, as links to the repository's own: nothing needs the network. */
function linkedDependencies(): Record<string, string> {
  const lock = readFileSync(path.join(root, "node_modules", ".package-lock.json"), "utf8");
  const packages: Record<string, { dev?: boolean; devOptional?: boolean }> = JSON.parse(lock).packages;
  const names = Object.keys(packages).filter((name) => !packages[name]?.dev && !packages[name]?.devOptional);
  return Object.fromEntries(names.map((name) => [name.replace("node_modules/", ""), `file:${path.join(root, name)}`]));
}

beforeAll(async () => {
  const packed = await run([...npm, "pack", "--ignore-scripts", "--json", "--pack-destination", project], root);
  expect(packed.exitCode, packed.stderr).toBe(0);
  const [{ filename }] = JSON.parse(packed.stdout);
  const dependencies = { ...linkedDependencies(), layerstream: `file:${path.join(project, filename)}` };
  const manifest = { name: "project", version: "1.0.0", private: true, type: "module", dependencies };
  writeFileSync(path.join(project, "package.json"), JSON.stringify(manifest));
  const installed = await run([...npm, "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund"], project);
  expect(installed.exitCode, installed.stderr).toBe(0);
});
afterAll(remove);

describe("the packed package, installed into an empty project", () => {
  const npx = (...args: string[]) => run([...npm, "exec", "--no", "--", "layerstream", ...args], project);

  it("answers npx layerstream", async () => {
    const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
    expect(await npx("--version")).toMatchObject({ exitCode: 0, stdout: `${version}\n` });
    expect((await npx()).stdout).toContain("Usage: layerstream");
  });

  it("names the one command that builds the addon", async () => {
    const { exitCode, stderr } = await npx("decompose", checkpoint, "-o", path.join(project, "store"));
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^layerstream: NATIVE_ADDON_MISSING: .*npx layerstream build$/m);
  });

  it("holds what the build of the addon needs, and no sources or tests of TypeScript", async () => {
    const files = await run(["find", "node_modules/layerstream/", "-type", "f"], project);
    const names = files.stdout.split("\n").map((name) => name.replace("node_modules/layerstream/", ""));
    const bindings = readFileSync(path.join(root, "binding.gyp"), "utf8");
    const scripts = bindings.match(/tools\/[\w-]+\.\w+/g) ?? [];
    expect(scripts).toContain("tools/list-sources.cjs");
    for (const name of ["binding.gyp", "tools/build.mjs", "tools/lock.mjs", ...scripts, "native/addon.cc", "LICENSE"]) {
      expect(names).toContain(name);
    }
    expect(names.filter((name) => /^(src|test|build)\/|\.map$|\.test\./.test(name))).toEqual([]);
    // The build starts, and ends at what it is told to miss: everything before the compiler is in the package.
    const build = await run(
      ["env", "CXX=no-such-compiler", process.execPath, "node_modules/layerstream/tools/build.mjs"],
      project,
    );
    expect(build).toMatchObject({ exitCode: 1, stdout: "" });
    expect(build.stderr).toMatch(/^layerstream: No C\+\+ compiler found \(tried no-such-compiler\)\. Install/);
  });

  it("exports AutoModel and AutoTokenizer with types", async () => {
    const source = `
      import { AutoModel, AutoTokenizer, LayerstreamError } from "layerstream";
      export async function first(): Promise<string> {
        const model = await AutoModel.fromPretrained("somewhere", { memory: "4GiB", compression: "4bit" });
        for await (const { text, token } of model.generate([1, 2], { maxNewTokens: 1 })) return text + token.toFixed();
        const { logits } = await model.forward([1]);
        return (await AutoTokenizer.fromPretrained("somewhere")).decode([logits.length]);
      }
      // @ts-expect-error: not one of the compressions
      export const refused = () => AutoModel.fromPretrained("somewhere", { compression: "2bit" });
      export const isCode = (error: LayerstreamError) => error.code === "STORE_CORRUPT";
    `;
    writeFileSync(path.join(project, "use.ts"), source);
    const compiler = path.join(root, "node_modules", "typescript", "bin", "tsc");
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node"];
    const typeRoots = ["--typeRoots", path.join(root, "node_modules", "@types")];
    const checked = await run([process.execPath, compiler, ...options, ...typeRoots, "use.ts"], project);
    expect(checked).toEqual({ exitCode: 0, stdout: "", stderr: "" });

    const script = 'const all = await import("layerstream"); console.log(typeof all.AutoModel.fromPretrained);';
    const imported = await run([process.execPath, "--input-type=module", "-e", script], project);
    expect(imported).toEqual({ exitCode: 0, stdout: "function\n", stderr: "" });
  });
});
