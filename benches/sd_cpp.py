#!/usr/bin/env python3
"""A transformer step by dype and by stable-diffusion.cpp in turn on this machine's processor, as ratios of medians.

    cargo build --release --bench peer
    python3 benches/sd_cpp.py SD_CLI WORKDIR [PAIRS]

SD_CLI is stable-diffusion.cpp's `sd-cli` (its sources are in the Python package stable-diffusion-cpp-python). The model is as wide as
FLUX.1, of 1 double and 2 single blocks with random weights, at 1024 px. Without a T5 its text is 256 tokens of zeros, where dype's is 512:
it has 5% less to do. Every measurement is a process of its own that takes two steps. Of its two the second counts, before it decodes, and of
ours the faster.
"""
import json
import os
import re
import subprocess
import sys

import compare
import reference

PX = 1024
WIDTH, HEAD = 3072, 128
# Its own flags beside ours of the same numbers.
CASES = {
    "bf16": (["--type", "bf16", "--fa"], ["--dtype", "bf16"]),
    "bf16, attention as its default has it": (["--type", "bf16"], ["--dtype", "bf16"]),
    "Q8_0 there, bf16 here": (["--type", "q8_0", "--fa"], ["--dtype", "bf16"]),
    "f32": (["--type", "f32", "--fa"], ["--dtype", "f32"]),
}


def flux_shapes(double, single):
    """FLUX.1's tensors as its authors name them, with so many blocks."""
    shapes = {}

    def linear(name, outputs, inputs):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [outputs, inputs], [outputs]

    def norms(name):
        shapes[f"{name}.query_norm.scale"] = shapes[f"{name}.key_norm.scale"] = [HEAD]

    linear("img_in", WIDTH, 64)
    linear("txt_in", WIDTH, 4096)
    for name, inputs in [("time_in", 256), ("vector_in", 768), ("guidance_in", 256)]:
        linear(f"{name}.in_layer", WIDTH, inputs)
        linear(f"{name}.out_layer", WIDTH, WIDTH)
    for side in [f"double_blocks.{block}.{side}" for block in range(double) for side in ("img", "txt")]:
        linear(f"{side}_mod.lin", 6 * WIDTH, WIDTH)
        linear(f"{side}_attn.qkv", 3 * WIDTH, WIDTH)
        linear(f"{side}_attn.proj", WIDTH, WIDTH)
        linear(f"{side}_mlp.0", 4 * WIDTH, WIDTH)
        linear(f"{side}_mlp.2", WIDTH, 4 * WIDTH)
        norms(f"{side}_attn.norm")
    for name in [f"single_blocks.{block}" for block in range(single)]:
        linear(f"{name}.modulation.lin", 3 * WIDTH, WIDTH)
        linear(f"{name}.linear1", 7 * WIDTH, WIDTH)
        linear(f"{name}.linear2", WIDTH, 5 * WIDTH)
        norms(f"{name}.norm")
    linear("final_layer.linear", 64, WIDTH)
    linear("final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH)
    return shapes


def files(work):
    """What it loads: the same blocks as dype's, CLIP-L and an autoencoder, all random."""
    pool, flux, clip = None, os.path.join(work, "flux.safetensors"), os.path.join(work, "clip_l.safetensors")
    tensors = os.path.join(compare.ROOT, "tests", "fixtures", "flux1_dev_tensors.json")
    for path, shapes in [(flux, flux_shapes(1, 2)), (clip, json.load(open(tensors))["text_encoder"])]:
        if not os.path.exists(path):
            pool = pool or reference.random_pool()
            reference.random_file(path, shapes, pool)
    for part, maker in [("vae", reference.make_vae), ("transformer", reference.make_step)]:
        if not os.path.isdir(os.path.join(work, part)):
            maker(work)
    vae = os.path.join(work, "vae", "diffusion_pytorch_model.safetensors")
    return ["--diffusion-model", flux, "--clip_l", clip, "--vae", vae]


def theirs(command):
    """Seconds of the second step, and the peak of resident bytes until then."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = b""
    while b"sampling completed" not in out:
        more = os.read(process.stdout.fileno(), 1 << 16)
        if not more:
            sys.exit(f"failed: {' '.join(command)}\n{out.decode(errors='replace')}")
        out += more
    peak = re.search(r"VmHWM:\s+(\d+) kB", open(f"/proc/{process.pid}/status").read())
    process.kill()
    process.wait()
    # Its bar has the mean of both steps behind the second, and the first's time behind the first.
    first, both = (float(seconds) for seconds in re.findall(rb"\| [12]/2 - ([\d.]+)s/it", out))
    return 2 * both - first, int(peak[1]) * 1024


def main():
    binary, work, pairs = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3
    os.makedirs(work, exist_ok=True)
    threads = str(reference.torch.get_num_threads())
    common = [binary, *files(work), "-p", "a cat", "-W", str(PX), "-H", str(PX), "--steps", "2", "--cfg-scale", "1",
              "--sampling-method", "euler", "-t", threads, "-v", "-o", os.path.join(work, "sd.png")]
    step = [compare.peer(), "step", work, "--px", str(PX), "--runs", "2"]
    print("| case | dype | stable-diffusion.cpp | time | dype memory | its memory | memory |\n|---|---|---|---|---|---|---|")
    for name, (their_flags, our_flags) in CASES.items():
        told = [(compare.measure(step + our_flags), theirs(common + their_flags)) for _ in range(pairs)]
        print(compare.row(f"step {PX} px, {name}", told), flush=True)


if __name__ == "__main__":
    main()
