#!/usr/bin/env bash
# Everything that only a GPU can tell, in one table: is dype right on this card, how fast is it, what does it take.
#
#   benches/gpu.sh WORKDIR [options of gpu.py]
#
# Needs a python3 with torch, diffusers, transformers, safetensors, numpy and pillow (PYTHON names another one), and two
# binaries built with `--features cuda`: DYPE and PEER name them (plain or .xz), else they are looked for in target/release.
# A lazily linked binary (tools/cuda/toolkit.sh) finds CUDA's libraries in PyTorch's own wheels. Without a GPU,
# `benches/gpu.sh WORKDIR --device cpu --small` runs every line on small models. WORKDIR takes 24 GB of random weights.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=${1:?usage: gpu.sh WORKDIR [options of gpu.py]}
shift
mkdir -p "$work"
python=${PYTHON:-python3}
target=${CARGO_TARGET_DIR:-$here/../target}/release

# Newest of the bench's binaries: cargo names them by a hash.
newest_peer() { find "$target/deps" -maxdepth 1 -name 'peer-*' -type f -executable -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2-; }

# A binary ready to run: unpacked where it is packed.
ready() {
  case $1 in
    *.xz) xz -dc "$1" > "$work/$2" && chmod +x "$work/$2" && echo "$work/$2" ;;
    *) echo "$1" ;;
  esac
}
dype=$(ready "${DYPE:-$target/dype}" dype)
peer=$(ready "${PEER:-$(newest_peer)}" peer)
for binary in "$dype" "$peer"; do
  test -x "$binary" || { echo "no binary '$binary': build with --features cuda (and --bench peer), or set DYPE and PEER" >&2; exit 2; }
done

libraries=$("$python" -c 'import glob, os, sys
print(":".join(sorted({os.path.dirname(f) for p in sys.path for f in glob.glob(p + "/nvidia/**/lib*.so.*", recursive=True)})))')
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$python" "$here/gpu.py" "$work" --dype "$dype" --peer "$peer" "$@"
