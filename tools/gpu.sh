#!/usr/bin/env bash
# Builds, checks and times everything that needs a GPU, in one call (tools/gpu.mjs says what).
#
#   bash tools/gpu.sh [the options of tools/gpu.mjs]     on the machine with the GPU
#   bash tools/gpu.sh --pack                             before, where Node and a network are
#
# Without --pack, it installs and builds what is missing. A machine without Node or without a network takes all of that
# from build/gpu/ instead: `--pack` puts Node, the packages, the addon with its kernels and the native tests there (x64 Linux).
set -euo pipefail
cd "$(dirname "$0")/.."
carried=build/gpu

if [ "${1:-}" = --pack ]; then
  node tools/setup.mjs
  node tools/native-tests.mjs --plain --no-run conformance device_test transfer runtime
  node tools/native-tests.mjs --bench --no-run device
  rm -rf "$carried" && mkdir -p "$carried"
  xz -T0 -c "$(command -v node)" >"$carried/node.xz"
  packages=$(node -p 'Object.entries(require("./node_modules/.package-lock.json").packages)
    .filter(([, { dev, devOptional }]) => !dev && !devOptional).map(([name]) => name).join(" ")')
  programs=$(find build/native-tests/plain -maxdepth 1 -type f -perm -u+x)
  # shellcheck disable=SC2086 # names without spaces
  tar -cJf "$carried/tree.tar.xz" dist build/Release/layerstream.node $packages $programs
  du -sh "$carried"
  exit 0
fi

if ! command -v node >/dev/null; then
  [ -f "$carried/node.xz" ] || { echo "gpu: there is no Node. Run 'bash tools/gpu.sh --pack' elsewhere and bring $carried." >&2; exit 2; }
  mkdir -p "$carried/bin"
  xz -dc "$carried/node.xz" >"$carried/bin/node" && chmod +x "$carried/bin/node"
  export PATH="$PWD/$carried/bin:$PATH"
fi
if [ -f "$carried/tree.tar.xz" ]; then
  tar -xJf "$carried/tree.tar.xz"
else
  node tools/setup.mjs
fi
exec node tools/gpu.mjs "$@"
