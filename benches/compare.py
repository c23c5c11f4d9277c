#!/usr/bin/env python3
"""dype beside PyTorch and diffusers: the same work in turn on this machine, as ratios of medians.

    pip install torch diffusers transformers safetensors openvino     # the other side; never needed by dype itself
    cargo build --release --bench peer && cargo build --release
    python3 benches/compare.py WORKDIR [CASE ...]

WORKDIR receives random weights (5 GB). Every measurement is a process of its own; ours and theirs alternate, so that a
machine whose speed drifts does not favour one. Of a process that measures twice the faster counts. Prints a Markdown table: median
seconds, ratio, peak resident memory, ratio.
"""
import glob
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
REFERENCE = [sys.executable, os.path.join(HERE, "reference.py")]
TINY = os.path.join(ROOT, "tests", "fixtures", "tiny-flux")
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))


FAMILIES = ["z-image", "klein"]


def peer():
    found = [path for path in glob.glob(os.path.join(TARGET, "release", "deps", "peer-*")) if os.access(path, os.X_OK)]
    return max(found, key=os.path.getmtime)


def cases(work):
    """name -> (our command, their command, processes a side)"""
    ours, dype = peer(), os.path.join(TARGET, "release", "dype")
    # A second one is like all that follow; a first one takes memory for the first time too.
    def twice(command, folder, px, *more, theirs=None):
        told = [folder, "--px", str(px), *more, "--runs", "2"]
        return [ours, command, *told], REFERENCE + [theirs or command, *told]

    step = lambda px, dtype, theirs="step": twice("step", work, px, "--dtype", dtype, theirs=theirs)
    step_of = lambda family, dtype: twice("step-of", os.path.join(work, family), 1024, "--dtype", dtype)
    decode = lambda px: twice("decode", work, px)
    whole = (
        [dype, "--model", TINY, "--width", "4096", "--height", "4096", "--steps", "1", "--quiet", "--device", "cpu",
         "--prompt", "A serene mountain landscape at sunset", "-o", os.path.join(work, "whole.png"), "--overwrite"],
        REFERENCE + ["run", TINY, "--px", "4096"],
    )
    return {
        "step 1024 px, f32": (*step(1024, "f32"), 3),
        "step 2048 px, f32": (*step(2048, "f32"), 1),
        "step 1024 px, bf16": (*step(1024, "bf16"), 3),
        **{f"step 1024 px, {dtype}, beside OpenVINO": (*step(1024, dtype, "step-openvino"), 3) for dtype in ["f32", "bf16"]},
        **{f"{family} step 1024 px, {dtype}": (*step_of(family, dtype), 3) for family in FAMILIES for dtype in ["f32", "bf16"]},
        "decode 1024 px, f32": (*decode(1024), 3),
        "tiny-flux 4096 px, 1 step": (*whole, 1),
    }


def measure(command):
    """Seconds and peak resident bytes of one process: what it reports itself, else what the system saw."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if lines:
        told = json.loads(lines[-1])
        return min(told["seconds"]), told["peak_rss_bytes"]
    return wall, usage.ru_maxrss * 1024


def row(name, pairs):
    """A line of the table, of pairs of our (seconds, bytes) and theirs: medians and ratios."""
    seconds, peak = ([statistics.median(pair[side][at] for pair in pairs) for side in (0, 1)] for at in (0, 1))
    peak = [bytes / 1e9 for bytes in peak]
    return (
        f"| {name} | {seconds[0]:.1f} s | {seconds[1]:.1f} s | {seconds[0] / seconds[1]:.2f} x "
        f"| {peak[0]:.2f} GB | {peak[1]:.2f} GB | {peak[0] / peak[1]:.2f} x |"
    )


def main():
    work, wanted = sys.argv[1], sys.argv[2:]
    makers = [("transformer", "make-step", work), ("vae", "make-vae", work)]
    makers += [(family, f"make-{family}", os.path.join(work, family)) for family in FAMILIES]
    for part, maker, folder in makers:
        if not os.path.isdir(os.path.join(work, part)):
            subprocess.run(REFERENCE + [maker, folder], check=True)
    print("| case | dype | the other | time | dype memory | the other's memory | memory |\n|---|---|---|---|---|---|---|")
    for name, (ours, theirs, count) in cases(work).items():
        if wanted and not any(word in name for word in wanted):
            continue
        print(row(name, [(measure(ours), measure(theirs)) for _ in range(count)]), flush=True)


if __name__ == "__main__":
    main()
