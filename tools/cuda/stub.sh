#!/usr/bin/env bash
# Stand-ins with which `cargo check --features cuda` (and flash-attn) passes on a machine without CUDA and without git's
# network: what is checked is the Rust code behind the features, not a kernel.
#
#   tools/cuda/stub.sh DIR      then:  . DIR/env.sh && cargo check --features flash-attn
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?usage: stub.sh DIR}/bin"
dir=$(cd "$1" && pwd)
cp "$here/stub-nvcc" "$dir/bin/nvcc"

# The build script of candle-flash-attn wants CUTLASS at one commit: an empty folder that says it is that commit.
(cd "$here/../.." && cargo fetch --locked --quiet --target "$(rustc --print host-tuple)")
commit=$(grep -ohE 'CUTLASS_COMMIT: &str = "[0-9a-f]{40}"' \
  "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/candle-flash-attn-*/build.rs | grep -oE '[0-9a-f]{40}' | tail -n 1)
cutlass=$dir/git/checkouts/cutlass-${commit:0:16}
git init --quiet "$cutlass"
mkdir -p "$cutlass/include"
echo "$commit" > "$cutlass/.git/HEAD"

cat > "$dir/env.sh" <<END
export PATH=$dir/bin:\$PATH CUDAFORGE_HOME=$dir CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-90}
END
