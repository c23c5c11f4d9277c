#!/usr/bin/env bash
# The CUDA binary run on a card made of software (tools/cuda/card), held against the CPU; no GPU, no driver.
#
#   tools/cuda/simulate.sh DIR             toolkit, binary and card go to DIR; then every check, as one table
#   SEEDS=200 tools/cuda/simulate.sh DIR   that many orders of the streams instead of 8
#   SECONDS_FULL=0 tools/cuda/simulate.sh DIR   no FLUX.1 at its true size; 1200 seconds are for it unless said
#
# The kernels are candle's, compiled to PTX by the toolkit's nvcc; card/nvcc leaves out those that travel as machine code, which
# take minutes and are not executed here. Needs what toolkit.sh needs. What is in DIR already is used again, the build too: after
# another toolkit delete DIR/target, since cargo does not see that nvcc changed. Exit code 1 where a check fails.
#
# Not done yet: a run of this script from an empty DIR to its end. What is known so far comes from its parts, with a binary built over
# stub-nvcc that is given the same kernels, compiled apart by the toolkit's nvcc, as CARD_PTX (and DYPE and CARD_LIB, see below).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
fixtures=$root/tests/fixtures
mkdir -p "${1:?usage: simulate.sh DIR}"
dir=$(cd "$1" && pwd)
failed=0

prepare() {
  test -e "$dir/toolkit/env.sh" || LAZY=1 "$here/toolkit.sh" "$dir/toolkit"
  export CUDA_COMPUTE_CAP=80 # PTX of the oldest card that is simulated with bf16, which newer ones take too
  . "$dir/toolkit/env.sh"
  "$here/kernels.sh" --check || failed=1
  mkdir -p "$dir/bin" "$dir/lib" "$dir/out"
  cp "$here/card/nvcc" "$dir/bin/nvcc"
  export PATH=$dir/bin:$PATH
  (cd "$root" && cargo build --locked --features cuda --bin dype --target-dir "$dir/target")
  (cd "$here/card" && cargo build --locked --release --target-dir "$dir/card")
  for name in libcuda.so.1 libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libnvrtc.so.13; do
    ln -sf ../card/release/libcard.so "$dir/lib/$name"
  done
}
# For a binary and a card that are there already: DYPE and CARD_LIB name them.
if [ -z "${DYPE:-}" ]; then
  prepare
  DYPE=$dir/target/debug/dype
  CARD_LIB=$dir/lib
fi
mkdir -p "$dir/out"

# picture NAME FLAGS...: one on the device that DEVICE names.
picture() {
  local name=$1
  shift
  env ${ENVIRONMENT:-} LD_LIBRARY_PATH="$CARD_LIB" DYPE_CACHE="$dir/cache" CARD_REPORT="$dir/out/$name.json" \
    "$DYPE" --device "$DEVICE" --prompt lake --quiet --overwrite -o "$dir/out/$name.png" "$@" 2> "$dir/out/$name.log"
}

row() { printf '| %-46s | %-34s | %-26s | %s |\n' "$@"; }

# held WHAT NAME PLAIN MEAN MOST: a picture against the CPU's, in levels of 255.
held() {
  local found verdict=yes
  found=$(python3 "$here/card/compare.py" "$dir/out/$2.png" "$dir/out/$3.png") || found="none none"
  python3 -c 'import sys; m, x, a, b = map(float, sys.argv[1:]); sys.exit(not (m <= a and x <= b))' $found "$4" "$5" || { verdict='**no**'; failed=1; }
  row "$1" "$found" "at most $4 $5" "$verdict"
}

against_cpu() {
  local name=$1 dtype tolerance weights
  shift
  DEVICE=cpu picture "$name-cpu" --dtype f32 "$@"
  for dtype in f32 bf16 f16; do
    tolerance="0.5 255"
    [ $dtype = f32 ] && tolerance="0.02 2"
    for weights in resident stream; do
      DEVICE=cuda picture "$name-$dtype-$weights" --dtype $dtype --weights $weights "$@" || { failed=1; tail -n 3 "$dir/out/$name-$dtype-$weights.log"; }
      held "$name, $dtype, $weights: mean, largest" "$name-$dtype-$weights" "$name-cpu" $tolerance
    done
  done
}

# launched NAME KERNEL: whether a run launched a kernel at all.
launched() {
  local found verdict=yes
  found=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["kernels"].get(sys.argv[2], {}).get("launches", 0))' "$dir/out/$1.json" "$2") || found=none
  [ "$found" -gt 0 ] 2> /dev/null || { verdict='**no**'; failed=1; }
  row "$1: launches of $2" "$found" "some" "$verdict"
}

# Streamed weights in so many orders of the streams: one picture.
orders() {
  local seed different=0
  for seed in $(seq 1 "${SEEDS:-8}"); do
    ENVIRONMENT="CARD_SEED=$seed" DEVICE=cuda picture "order-$seed" --dtype bf16 --weights stream "${tiny[@]}" &&
      cmp -s <(pixels "order-$seed") <(pixels tiny-flux-bf16-stream) || { different=$((different + 1)); failed=1; }
  done
  row "tiny-flux, bf16, streamed, ${SEEDS:-8} orders" "$different differ" "0" "$([ $different = 0 ] && echo yes || echo '**no**')"
}
pixels() { python3 "$here/card/compare.py" "$dir/out/$1.png" "$dir/out/tiny-flux-bf16-stream.png"; }

# FLUX.1 of holes at its true size on cards of 8 to 80 GB: what is allocated against the plan, with a time limit.
full_size() {
  test -d "$dir/hollow" || python3 "$here/card/hollow.py" "$fixtures" "$dir/hollow"
  python3 "$here/card/full_size.py" "$DYPE" "$CARD_LIB" "$dir/hollow" "$dir/full" "${SECONDS_FULL:-1200}" || failed=1
}

tiny=(--model "$fixtures/tiny-flux" --width 64 --height 64 --steps 2 --max-sequence-length 64)
row what found wanted right
row --- --- --- ---
against_cpu tiny-flux "${tiny[@]}"
against_cpu demo --model demo --width 64 --height 64 --steps 2
launched tiny-flux-bf16-resident attention_bf16_32
launched demo-f16-stream attention_f16_64
orders
echo
[ "${SECONDS_FULL:-1200}" = 0 ] || full_size
exit $failed
