#!/usr/bin/env python3
"""What benches/gpu.sh runs: correctness, speed and memory of dype on a GPU beside PyTorch on the same card, as Markdown.

Every measurement is a process of its own. Memory is the card's own count while the process runs, less what was taken before.
Rows that would start after --seconds are left out and said to be.
"""
import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "tests" / "fixtures"
# What the simulated card expects of cards, by their names: tools/cuda/card/roofline.py.
PREDICTED = HERE / "predictions.json"
PROMPT = "a calm lake below snowy mountains at sunset"
START = time.monotonic()


class Memory(threading.Thread):
    """The most that a card's memory held while this thread ran, in bytes over what it held before; 0 without a card."""

    def __init__(self, device):
        super().__init__(daemon=True)
        self.counted, self.done, self.most = device == "cuda", threading.Event(), 0
        self.before = self.used()

    def used(self):
        if not self.counted:
            return 0
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) << 20

    def run(self):
        while not self.done.wait(.1):
            self.most = max(self.most, self.used() - self.before)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


class Bench:
    def __init__(self, args):
        self.args, self.work = args, Path(args.work)
        self.failed = []
        # What was measured of what is predicted: stage, size and weights, seconds, bytes of the card.
        self.measured = []

    def late(self, what):
        """Says that there is no time for a row."""
        if time.monotonic() - START < self.args.seconds:
            return False
        print(f"\nleft out for want of time: {what}", flush=True)
        return True

    def process(self, command, what):
        """(the lines of JSON it prints, the card's memory it took), or None where it fails."""
        with Memory(self.args.device) as memory:
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode:
            print(f"\n{what} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", flush=True)
            self.failed.append(what)
            return None
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], memory.most

    def peer(self, what, *arguments):
        return self.process([self.args.peer, *arguments, "--device", self.args.device], what)

    def reference(self, what, *arguments):
        return self.process([sys.executable, HERE / "reference.py", *arguments, "--device", self.args.device], what)

    def picture(self, name, device, dtype, *more):
        out = self.work / f"{name}-{device}-{dtype}.png"
        command = [self.args.dype, "--device", device, "--dtype", dtype, "--prompt", PROMPT, "-o", out, "--overwrite", "--quiet", *more]
        return np.asarray(Image.open(out)).astype(float) if self.process(command, out.stem) else None

    def row(self, *cells):
        print("| " + " | ".join(cells) + " |", flush=True)

    def check(self, what, found, most, unit=""):
        right = found <= most
        if not right:
            self.failed.append(what)
        self.row(what, f"{found:.3g}{unit}", f"{most:g}{unit}", "yes" if right else "**no**")


def pictures(b):
    """Golden runs on the card against the CPU's: mean difference of 255 levels."""
    models = {
        "tiny-flux": ["--model", FIXTURES / "tiny-flux", "--width", "128", "--height", "96", "--steps", "4", "--max-sequence-length", "64"],
        "demo": ["--model", "demo", "--width", "256" if b.args.small else "512", "--height", "256", "--steps", "8", "--guidance", "3.5"],
    }
    for name, flags in models.items():
        plain = b.picture(name, "cpu", "f32", *flags)
        for dtype, most in (("f32", .05), ("bf16", .5)):
            found = b.picture(name, b.args.device, dtype, *flags)
            if plain is not None and found is not None:
                b.check(f"{name} picture, {dtype}, mean difference to the CPU's f32", np.abs(plain - found).mean(), most, " of 255")


def tensors(b):
    """Attention, decode and noise against PyTorch."""
    from safetensors.torch import load_file
    file = b.work / "tensors.safetensors"
    for dtype, most in (("f32", 1e-4), ("bf16", 1e-2)):
        if b.peer(f"attention {dtype}", "attention", "--dtype", dtype, "--out", file):
            x = load_file(file)
            q, k, v = (x[n].double() for n in "qkv")
            want = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
            b.check(f"attention, {dtype}, relative error to PyTorch's f64", ((x["out"].double() - want).norm() / want.norm()).item(), most)
    px = 128 if b.args.small else 512
    for dtype, most in (("f32", 2e-4), ("bf16", 3e-2)):
        if b.peer(f"decode {dtype}", "pixels", b.vae, "--px", px, "--dtype", dtype, "--out", file):
            x = load_file(file)
            with torch.inference_mode():
                vae = autoencoder(b.vae)
                want = vae.decode(x["latents"].float() / vae.config.scaling_factor + vae.config.shift_factor).sample[0].permute(1, 2, 0)
            b.check(f"decode at {px} px, {dtype}, mean difference to PyTorch's f32 on the CPU", (x["pixels"].float() - want).abs().mean().item(), most)
    count = 1 << 16 if b.args.small else 1 << 24
    rng = "torch-cuda" if b.args.device == "cuda" else "torch-cpu"
    if b.peer("noise", "noise", "--rng", rng, "--seed", 42, "--count", count, "--out", file):
        want = torch.randn(count, generator=torch.Generator(b.args.device).manual_seed(42), device=b.args.device).cpu()
        found = load_file(file)["noise"]
        same = (found.view(torch.int32) == want.view(torch.int32)).double().mean().item()
        b.check(f"noise {rng}, largest difference to torch.randn ({same:.2%} equal to the bit)", (found - want).abs().max().item(), 1e-6)


def autoencoder(folder):
    from diffusers import AutoencoderKL
    from diffusers.utils import logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoencoderKL.from_pretrained(Path(folder, "vae"), torch_dtype=torch.float32)


def matmul_rate(device, small):
    """The card's own bf16 matrix products, in operations a second."""
    n = 1024 if small else 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    times = []
    for _ in range(3 if small else 20):
        wait()
        begin = time.perf_counter()
        a @ a
        wait()
        times.append(time.perf_counter() - begin)
    return 2 * n ** 3 / sorted(times)[len(times) // 2]


def steps(b, rate):
    """One step at each size: resident, streamed, in 12 and 8 GB, and PyTorch's own blocks with SDPA."""
    sizes, runs = (["64", "128"], 1) if b.args.small else (["1024", "2048", "4096"], 2)
    flags = ["--px", ",".join(sizes), "--dtype", "bf16", "--runs", runs]
    ours = {
        "resident": ["--weights", "resident"],
        "streamed": ["--weights", "stream"],
        "streamed, 12 GB": ["--weights", "stream", "--memory", 9_000_000_000],
        "streamed, 8 GB": ["--weights", "stream", "--memory", 5_500_000_000],
    }
    theirs = {px: None for px in sizes}
    if not b.late("PyTorch's steps") and (found := b.reference("PyTorch's steps", "step", b.model, *flags)):
        theirs = {str(line["px"]): (min(line["seconds"]), line["peak_bytes"]) for line in found[0]}
    tables = {px: b.peer("tables", "tables", "--px", px) for px in sizes}
    for name, more in ours.items():
        if b.late(f"steps, {name}"):
            continue
        found = b.peer(f"steps, {name}", "step", b.model, *flags, *more)
        for line in found[0] if found else []:
            px, seconds = str(line["px"]), min(line["seconds"])
            other = theirs.get(px)
            cost = min(tables[px][0][0]["seconds"]) / seconds if tables.get(px) else float("nan")
            b.row(f"{px} px, {name}", f"{seconds:.2f} s", f"{other[0]:.2f} s" if other else "-", f"{other[0] / seconds:.2f} x" if other else "-",
                  f"{line['flops'] / seconds / 1e12:.2f}", f"{line['flops'] / seconds / rate:.0%}", f"{cost:.2%}")
            # The process holds what its largest size takes.
            bytes_taken = found[1] if px == sizes[-1] else None
            b.measured.append(("step", int(px), {"resident": "resident", "streamed": "stream"}.get(name), seconds, bytes_taken))
        if found:
            b.row(f"card memory of the process, {name}", f"{found[1] / 1e9:.1f} GB", *["" for _ in range(5)])
    for px, other in theirs.items():
        if other:
            b.row(f"memory of PyTorch at {px} px", "", f"{other[1] / 1e9:.1f} GB", *["" for _ in range(4)])


def decodes(b):
    for px in ([128] if b.args.small else [1024, 4096]):
        for name, more in {"all of the card": [], "8 GB": ["--memory", 6_000_000_000]}.items():
            if b.late(f"decode {px} px, {name}"):
                continue
            ours = b.peer(f"decode {px} px, {name}", "decode", b.vae, "--px", px, "--dtype", "bf16", "--runs", 2, *more)
            theirs = None if more else b.reference(f"PyTorch's decode, {px} px", "decode", b.vae, "--px", px, "--dtype", "bf16", "--runs", 2)
            cells = lambda found: (f"{min(found[0][0]['seconds']):.2f} s, {found[1] / 1e9:.1f} GB" if found else "-")
            b.row(f"decode {px} px, {name}", cells(ours), cells(theirs))
            if ours and not more:
                b.measured.append(("decode", px, None, min(ours[0][0]["seconds"]), ours[1]))


def whole(b):
    """A picture from the model inside, 4096 px, as a user makes it."""
    px = 256 if b.args.small else 4096
    out = b.work / "whole.png"
    command = [b.args.dype, "--device", b.args.device, "--model", "demo", "--prompt", PROMPT, "--width", px, "--height", px, "-o", out, "--overwrite", "--steps", "4", "--json"]
    if not b.late("a whole picture") and (found := b.process(command, "a whole picture")):
        print(f"\nA whole run: the model inside, {px} px, 4 steps: {json.dumps(found[0][-1])[:600]}, card memory {found[1] / 1e9:.1f} GB")


def predicted(b, card):
    """What was measured beside what the simulated card's roofline expects of a card of this name."""
    rows = json.loads(PREDICTED.read_text()).get(card, [])
    print(f"\nPredicted for {card}, an estimate (docs/BENCHMARKS.md): " + ("" if rows else "nothing"))
    if not rows:
        return
    b.row("what", "measured", "predicted", "times as long", "card memory", "predicted")
    b.row(*["---"] * 6)
    gb = lambda size: f"{size / 1e9:.1f} GB" if size else "-"
    for stage, px, weights, seconds, size in b.measured:
        # A decode is the same however the transformer's weights travelled.
        same = lambda row: (row["stage"], row["px"]) == (stage, px) and (stage == "decode" or row["weights"] == weights)
        for row in list(filter(same, rows))[:1]:
            name = f"{stage}, {px} px" + (f", {weights}" if weights else "")
            b.row(name, f"{seconds:.2f} s", f"{row['seconds']:.2f} s", f"{seconds / row['seconds']:.2f} x", gb(size), gb(row["bytes"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("--dype", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="small models and sizes: shows that every line runs")
    parser.add_argument("--seconds", type=float, default=480, help="after which no further row is begun")
    b = Bench(parser.parse_args())
    b.model, b.vae = (FIXTURES / "tiny-flux",) * 2 if b.args.small else (b.work / "step", b.work / "vae")
    if b.args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: use --device cpu --small to try the script")
    for maker, folder, part in (("make-transformer", b.work / "step", "transformer"), ("make-vae", b.work / "vae", "vae")):
        if not b.args.small and not (folder / part).is_dir():
            subprocess.run([sys.executable, HERE / "reference.py", maker, folder], check=True)
    card = torch.cuda.get_device_name(0) if b.args.device == "cuda" else "CPU"
    rate = matmul_rate(b.args.device, b.args.small)
    version = subprocess.run([b.args.dype, "--version", "-v"], capture_output=True, text=True).stdout.strip().replace("\n", "; ")
    print(f"{card}, PyTorch {torch.__version__}, {time.strftime('%Y-%m-%d')}; {version}\nbf16 matrix products: {rate / 1e12:.2f} TFLOP/s\n")
    b.row("is it right", "found", "at most", "ok")
    b.row("---", "---", "---", "---")
    pictures(b)
    tensors(b)
    print()
    b.row("one step, bf16", "dype", "PyTorch, SDPA", "times as fast", "TFLOP/s", "of the matmul rate", "DyPE's tables")
    b.row(*["---"] * 7)
    steps(b, rate)
    print()
    b.row("decode, bf16", "dype", "PyTorch")
    b.row("---", "---", "---")
    decodes(b)
    whole(b)
    predicted(b, card)
    print(f"\n{time.monotonic() - START:.0f} s in all; failed: {', '.join(b.failed) or 'nothing'}")
    sys.exit(bool(b.failed))


main()
