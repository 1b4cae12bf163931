import { readlink, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, relative, sep } from "node:path";
import { LayerstreamError } from "../errors.js";
import { errnoOf, ioError } from "./file-io.js";

/** A file of a checkpoint that has been found to lie where it may. */
export interface SafeFile {
  name: string;
  /** Within the checkpoint's directory; may be a symbolic link. */
  path: string;
  /** What `path` leads to. */
  realPath: string;
  size: number;
  modifiedMs: number;
  /** Name of the Hugging Face cache blob that `path` links to: a hash of the content. */
  blob: string | undefined;
}

/** True for a plain file name: no separator of any platform, no "..", no drive, nothing hidden in control characters. */
export function isPlainFileName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  return name.length > 0 && name.length <= 255 && name !== "." && name !== ".." && !/[/\\:\u0000-\u001f]/.test(name);
}

/**
 * Finds regular file `name` in `directory`. A symbolic link may lead to anything in the same directory, and in the
 * Hugging Face cache (models--owner--name/snapshots/<revision>/) to anything in the same model's folder.
 * @returns undefined if there is no such file.
 * @throws UNSAFE_PATH if the name has a path in it or a link leads out; IO_ERROR if it is not a regular file.
 */
export async function findFile(directory: string, name: string): Promise<SafeFile | undefined> {
  const path = join(directory, name);
  if (!isPlainFileName(name)) {
    throw new LayerstreamError(
      "UNSAFE_PATH",
      `${directory} names the file ${JSON.stringify(name)}, which is not a plain file name.`,
      {
        file: path,
        remedy:
          "Files of a checkpoint lie in its own directory; do not use this checkpoint unless you trust its source.",
      },
    );
  }
  try {
    const realDirectory = await realpath(directory);
    const realPath = await realpath(path);
    const root = cacheFolderOf(realDirectory) ?? realDirectory;
    if (!isInside(root, realPath)) {
      throw new LayerstreamError("UNSAFE_PATH", `${path} is a symbolic link to ${realPath}, outside ${root}.`, {
        file: path,
        remedy: "Copy the file into the checkpoint's directory if you trust it.",
      });
    }
    const stats = await stat(realPath);
    if (!stats.isFile()) {
      throw new LayerstreamError("IO_ERROR", `${path} is not a regular file.`, {
        file: path,
        remedy: "Replace it with the file itself.",
      });
    }
    const blob = root !== realDirectory && dirname(realPath) === join(root, "blobs") ? basename(realPath) : undefined;
    return { name, path, realPath, size: stats.size, modifiedMs: stats.mtimeMs, blob };
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "ENOENT" && errno !== "ENOTDIR") throw ioError(error, "read", path);
    if (await isLink(path)) {
      throw new LayerstreamError("IO_ERROR", `${path} is a symbolic link to a file that does not exist.`, {
        file: path,
        remedy: "Download the checkpoint again.",
      });
    }
    return undefined;
  }
}

/** `models--owner--name` of a snapshot directory in the Hugging Face cache. */
export function cacheFolderOf(realDirectory: string): string | undefined {
  const snapshots = dirname(realDirectory);
  const folder = dirname(snapshots);
  return basename(snapshots) === "snapshots" && basename(folder).startsWith("models--") ? folder : undefined;
}

function isInside(root: string, path: string): boolean {
  const step = relative(root, path);
  return step !== "" && step !== ".." && !step.startsWith(`..${sep}`) && !step.startsWith(sep);
}

async function isLink(path: string): Promise<boolean> {
  return readlink(path).then(
    () => true,
    () => false,
  );
}
