#!/usr/bin/env bash
# The program's own CUDA kernels as the PTX text that is part of it: what a driver compiles for its card when a model is loaded.
# To be run after a change of a .cu file, with nvcc of CUDA 13.0 on PATH (tools/cuda/toolkit.sh makes one); another may write the same
# kernel in other words.
#
#   tools/cuda/kernels.sh            writes the .ptx beside each .cu
#   tools/cuda/kernels.sh --check    writes nothing; exit code 1 where a .ptx is not what its .cu compiles to
#
# Both print the registers and the shared memory of each kernel, and what it spills.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
failed=0

for source in "$root"/src/nn/kernels/*/*.cu; do
  compiled=${source%.cu}.ptx
  name=$(basename "$compiled")
  # The oldest card it is for, where its source says so; else the first whose matrix units take bf16.
  arch=$(sed -n 's,^// arch: ,,p' "$source")
  arch=${arch:-compute_80}
  # The ISA's version 7.0, which the drivers of CUDA 11.0 and newer read, is enough unless a source says otherwise.
  isa=$(sed -n 's,^// isa: ,,p' "$source")
  nvcc -ptx -arch="$arch" -std=c++17 -o "$made/plain.ptx" "$source"
  # Without comments; ptxas holds the text to the version. The digest is of what the source includes, and of itself.
  digest=$(cat $(sed -n "s,^#include \"\(.*\)\",$(dirname "$source")/\1,p" "$source") "$source" | sha256sum | cut -d ' ' -f 1)
  { echo "// $(basename "$source"), sha256 $digest"
    sed -E "s/^\.version .*/.version ${isa:-7.0}/"'; /^\s*(\/\/|$)/d' "$made/plain.ptx"; } > "$made/$name"
  ptxas -v -arch="${arch/compute/sm}" -o /dev/null "$made/$name" 2>&1 | grep -oE "'[a-z0-9_]+' for|[0-9]+ bytes spill.*|Used .*" | paste -sd ' ' |
    sed "s/ '/\n'/g"
  if [ "${1:-}" != --check ]; then
    cp "$made/$name" "$compiled"
  elif ! cmp -s "$made/$name" "$compiled"; then
    echo "$compiled is not what $source compiles to: run tools/cuda/kernels.sh" >&2
    failed=1
  fi
done
exit $failed
