#!/usr/bin/env bash
# The CUDA binary run on a card made of software (tools/cuda/card), held against the CPU; no GPU, no driver.
#
#   tools/cuda/simulate.sh DIR             toolkit, binary and card go to DIR; then every check, as one table
#   SEEDS=8 tools/cuda/simulate.sh DIR     that many orders of the streams instead of 200, of four seconds each on one core
#   SECONDS_FULL=0 tools/cuda/simulate.sh DIR   no FLUX.1 at its true size; what is left of 40 minutes is for it unless said, 300 seconds at least
#
# The kernels are candle's, compiled to PTX by the toolkit's nvcc; card/nvcc leaves out those that travel as machine code, which
# take minutes and are not executed here. Needs what toolkit.sh needs. What is in DIR already is used again, the build too: after
# another toolkit delete DIR/target, since cargo does not see that nvcc changed. Exit code 1 where a check fails.
#
# From an empty DIR, with the packages' sources at hand: 37.5 minutes on two cores of an AMD EPYC (Zen 4, 2026-11-27), of which 13 go to toolkit, card and
# binary, 15 to FLUX.1 at its true size. Every row was right but bf16's of tiny-flux and Qwen-Image, whose random weights make more
# of a rounding than 0.5 of 255 (docs/CONTRIBUTING.md says what was tried).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
fixtures=$root/tests/fixtures
limit=2400 # seconds, for everything
mkdir -p "${1:?usage: simulate.sh DIR}"
dir=$(cd "$1" && pwd)
failed=0

prepare() {
  (cd "$here/card" && cargo build --locked --release --target-dir "$dir/card") &
  local card=$!
  test -e "$dir/toolkit/env.sh" || LAZY=1 "$here/toolkit.sh" "$dir/toolkit"
  export CUDA_COMPUTE_CAP=80 # PTX of the oldest card that is simulated with bf16, which newer ones take too
  . "$dir/toolkit/env.sh"
  "$here/kernels.sh" --check || failed=1
  mkdir -p "$dir/bin" "$dir/lib" "$dir/out"
  cp "$here/card/nvcc" "$dir/bin/nvcc"
  export PATH=$dir/bin:$PATH
  (cd "$root" && cargo build --locked --features cuda --bin dype --target-dir "$dir/target")
  wait "$card"
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
    "$DYPE" --device "$DEVICE" --prompt lake --quiet --overwrite -o "$dir/out/$name.png" "$@" > /dev/null 2> "$dir/out/$name.log"
}

row() { printf '| %-46s | %-34s | %-26s | %s |\n' "$@"; }

# held WHAT NAME PLAIN MEAN MOST: a picture against the CPU's, in levels of 255.
held() {
  local found verdict=yes
  found=$(python3 "$here/card/compare.py" "$dir/out/$2.png" "$dir/out/$3.png") || found="none none"
  python3 -c 'import sys; m, x, a, b = map(float, sys.argv[1:]); sys.exit(not (m <= a and x <= b))' $found "$4" "$5" || { verdict='**no**'; failed=1; }
  row "$1" "$found" "at most $4 $5" "$verdict"
}

# against_cpu NAME "DTYPES" FLAGS...: a model in each number type, resident and streamed.
against_cpu() {
  local name=$1 dtypes=$2 dtype tolerance weights
  shift 2
  DEVICE=cpu picture "$name-cpu" --dtype f32 "$@"
  for dtype in $dtypes; do
    tolerance="0.5 255"
    [ $dtype = f32 ] && tolerance="0.02 2"
    for weights in resident stream; do
      DEVICE=cuda picture "$name-$dtype-$weights" --dtype $dtype --weights $weights "$@" || { failed=1; tail -n 3 "$dir/out/$name-$dtype-$weights.log"; }
      held "$name, $dtype, $weights: mean, largest" "$name-$dtype-$weights" "$name-cpu" $tolerance
    done
  done
}

# few_bits TYPE ENDING: the demo with its transformer in few bits, widened on the card, against the CPU's picture by the same file.
few_bits() {
  "$DYPE" convert demo -o "$dir/out/demo-$1.$2" --type "$1" --overwrite > /dev/null 2>&1 || failed=1
  against_cpu "demo-$1" f32 --model demo --part "transformer=$dir/out/demo-$1.$2" "${small[@]}"
}

# in_part: a budget that one block of the demo stays in while the others are streamed, in the order of the calls and in others.
in_part() {
  local seed verdict=yes found
  found=$(LD_LIBRARY_PATH="$CARD_LIB" "$DYPE" --device cuda --model demo --prompt lake --dry-run --dtype f32 --memory 53MB "${small[@]}" 2>&1 | grep -c "in part") || true
  [ "$found" = 1 ] || { verdict='**no**'; failed=1; }
  row "demo within 53 MB: plans in part" "$found" 1 "$verdict"
  for seed in "" 1 2 3; do
    ENVIRONMENT="${seed:+CARD_SEED=$seed}" DEVICE=cuda picture "demo-part-$seed" --model demo --dtype f32 --memory 53MB "${small[@]}" || failed=1
    held "demo, f32, in part, order ${seed:-of the calls}" "demo-part-$seed" demo-cpu 0.02 2
  done
}

# in_fp8: the demo's weights of fp8 multiplied as they are, resident and streamed, against the CPU's picture by the same file; and what
# cannot multiply so says it before it loads anything.
in_fp8() {
  local weights verdict found card=(--model demo --part "transformer=$dir/out/demo-fp8.safetensors" "${small[@]}" --fp8-products)
  for weights in resident stream; do
    DEVICE=cuda picture "demo-fp8-products-$weights" --weights $weights "${card[@]}" || { failed=1; tail -n 3 "$dir/out/demo-fp8-products-$weights.log"; }
    held "demo, products in fp8, $weights" "demo-fp8-products-$weights" demo-fp8-cpu 1 8
  done
  ENVIRONMENT="CARD=rtx3060" DEVICE=cuda picture fp8-refused "${card[@]}" && verdict='**no**' || verdict=yes
  found=$(grep -c "this card's is 8.6" "$dir/out/fp8-refused.log") || true
  [ "$found" = 1 ] && [ $verdict = yes ] || { verdict='**no**'; failed=1; }
  row "products in fp8 on an RTX 3060: lines that refuse" "$found" 1 "$verdict"
}

# trusted DTYPE: no kernel of the program's own is given up for failing its check at load.
trusted() {
  local found verdict=yes
  found=$(LD_LIBRARY_PATH="$CARD_LIB" "$DYPE" --device cuda --model demo --prompt lake --dtype "$1" "${small[@]}" --overwrite -o "$dir/out/trusted.png" 2>&1 |
    grep -c "is used instead") || true
  [ "$found" = 0 ] || { verdict='**no**'; failed=1; }
  row "kernels that fail their check, $1" "$found" 0 "$verdict"
}

# launched NAME KERNEL: whether a run launched a kernel at all.
launched() {
  local found verdict=yes
  found=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["kernels"].get(sys.argv[2], {}).get("launches", 0))' "$dir/out/$1.json" "$2") || found=none
  [ "$found" -gt 0 ] 2> /dev/null || { verdict='**no**'; failed=1; }
  row "$1: launches of $2" "$found" "some" "$verdict"
}

# on_card CARD NAME: tiny-flux by what the program itself decides there: number type, weights, pieces.
on_card() {
  ENVIRONMENT="CARD=$1" DEVICE=cuda picture "card-$1" "${tiny[@]}" || { failed=1; tail -n 3 "$dir/out/card-$1.log"; }
  held "tiny-flux on $2: mean, largest" "card-$1" tiny-flux-cpu 0.5 255
}

# too_old CARD NAME: a card that the binary's kernels are not made for is refused, with what to do.
too_old() {
  local verdict=yes found
  ENVIRONMENT="CARD=$1" DEVICE=cuda picture "card-$1" "${tiny[@]}" && found=drawn || found=$(grep -c "CUDA_COMPUTE_CAP" "$dir/out/card-$1.log")
  [ "$found" = 1 ] || { verdict='**no**'; failed=1; }
  row "$2: lines that say what to build" "$found" 1 "$verdict"
}

# crowded: a decode on a card with less room than it is told of begins again in less memory until it ends; shapes alone.
crowded() {
  local said found verdict=yes
  DEVICE=cpu picture crowded-cpu --model demo --width 1024 --height 1024 --steps 1 --save-latents "$dir/out/crowded.safetensors" || failed=1
  said=$(CARD=rtx4060 CARD_MEMORY_MIB=560 CARD_SHAPES=1 LD_LIBRARY_PATH="$CARD_LIB" LD_PRELOAD="$CARD_LIB/libcuda.so.1" DYPE_CACHE="$dir/cache" \
    "$DYPE" decode "$dir/out/crowded.safetensors" --model demo --device cuda --memory 4GB --overwrite -o "$dir/out/crowded.png" 2>&1) || verdict='**no**'
  found=$(grep -c "begins again" <<< "$said") || verdict='**no**'
  [ $verdict = yes ] || failed=1
  row "demo, a decode without its room: begun again" "$found" "some, and a picture" "$verdict"
}

# one_order NAME [SEED]: the smallest run whose streamed blocks take the ring's places anew, with its latents; without a seed, in the
# order of the calls.
one_order() {
  ENVIRONMENT="${2:+CARD_SEED=$2}" DEVICE=cuda picture "$1" --model "$fixtures/tiny-flux" --width 16 --height 16 --steps 2 \
    --max-sequence-length 16 --dtype bf16 --weights stream --save-latents "$dir/out/$1.safetensors"
}

# Streamed weights in so many orders of the streams, one on each core: the same latents to the last bit, and the same pixels.
orders() {
  local cores core seed different
  cores=$(nproc)
  one_order order || failed=1
  for core in $(seq 1 "$cores"); do
    for seed in $(seq "$core" "$cores" "${SEEDS:-200}"); do
      one_order "order-$core" "$seed" && cmp -s "$dir/out/order-$core.safetensors" "$dir/out/order.safetensors" &&
        [ "$(python3 "$here/card/compare.py" "$dir/out/order-$core.png" "$dir/out/order.png")" = "0.0000 0" ] || echo "$seed"
    done > "$dir/out/orders-$core.txt" &
  done
  wait
  different=$(cat "$dir"/out/orders-*.txt | wc -l)
  [ "$different" = 0 ] || failed=1
  row "tiny-flux, bf16, streamed, ${SEEDS:-200} orders" "$different differ" "0" "$([ "$different" = 0 ] && echo yes || echo '**no**')"
}

# FLUX.1 of holes at its true size on cards of 8 to 80 GB: what is allocated against the plan, with a time limit.
full_size() {
  local left=$((limit - SECONDS))
  test -d "$dir/hollow" || python3 "$here/card/hollow.py" "$fixtures" "$dir/hollow"
  python3 "$here/card/full_size.py" "$DYPE" "$CARD_LIB" "$dir/hollow" "$dir/full" --seconds "${SECONDS_FULL:-$((left > 300 ? left : 300))}" || failed=1
  echo
  python3 "$here/card/roofline.py" "$dir/full"
}

small=(--width 64 --height 64 --steps 2)
tiny=(--model "$fixtures/tiny-flux" "${small[@]}" --max-sequence-length 64)
bfl=(--model "$fixtures/tiny-bfl/flux1-tiny.safetensors" --vae "$fixtures/tiny-bfl/ae.safetensors" "${small[@]}" --max-sequence-length 64)
for part in text_encoder text_encoder_2 tokenizer tokenizer_2; do bfl+=(--part "$part=$fixtures/tiny-flux/$part"); done
row what found wanted right
row --- --- --- ---
against_cpu tiny-flux "f32 bf16 f16" "${tiny[@]}"
against_cpu tiny-bfl "f32 bf16" "${bfl[@]}"
against_cpu demo "f32 bf16 f16" --model demo "${small[@]}"
for family in z-image flux2-klein qwen-image; do
  against_cpu $family "f32 bf16" --model "$fixtures/$family/tiny" "${small[@]}"
done
in_part
few_bits q8_0 gguf
few_bits q4_0 gguf
few_bits fp8 safetensors
in_fp8
for dtype in f32 bf16 f16; do trusted $dtype; done
launched tiny-flux-bf16-resident attention_bf16_32
launched tiny-flux-bf16-resident taps_bf16_wide
launched demo-q8_0-f32-stream widen_q8_0_f32
launched demo-fp8-products-stream product_e4m3_bf16
launched demo-f16-stream attention_f16_64
on_card rtx4060 "8 GB"
too_old t4 "a card older than the binary"
crowded
orders
echo
[ "${SECONDS_FULL:-}" = 0 ] || full_size
exit $failed
