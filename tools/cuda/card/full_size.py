#!/usr/bin/env python3
"""FLUX.1 at its true size through the CUDA binary on the simulated card, shapes only: what it takes against what was planned.

DYPE is the binary, LIBRARIES the folder of the card's libraries, MODEL what hollow.py made; reports, plans and logs go to OUT, of which
roofline.py makes a table of seconds. One row for each card and size, the small ones first; what has not begun after --seconds is left
out, by name. Exit code 1 where a row is not right: the most that was allocated is off the plan by more than a twentieth, the card had no room, a
launch has 2^31 elements, or what does not fit was not refused for that before anything was loaded.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from roofline import phases, seconds

CARDS = {"rtx4060": "8 GB", "rtx3060": "12 GB", "rtx4090": "24 GB", "h100": "80 GB", "a100": "80 GB"}
# One card of each memory.
USUAL = ["rtx4060", "rtx3060", "rtx4090", "h100"]
SIDES = [1024, 4096, 5792, 8192]
# Launches in 31 bits, buffers in 32: src/base/limits.rs.
LAUNCH, BUFFER = 1 << 31, 1 << 32
OFF = 0.05
# What kernels that are checked before a plan take of a card at most; a block of weights takes hundreds of MB.
CHECKS = 64 << 20
# candle's softmax writes each number twice, its exponential and then its share (candle-kernels, reduce.cu).
WRITTEN_TWICE = "softmax"


class Run:
    """The binary on one card, at one size."""

    def __init__(self, args, card, side):
        self.dype, self.model, self.out, self.weights = args.dype, args.model, args.out, args.weights
        self.name, self.side = f"full-{card}-{side}" + f"-{args.weights}" * (args.weights != "auto") + "-fp8" * args.fp8, side
        self.flags = ["--fp8-products"] * args.fp8
        self.report = self.out / f"{self.name}.json"
        libraries = args.libraries.resolve()
        self.environment = os.environ | {
            "CARD": card, "CARD_SHAPES": "1", "CARD_REPORT": str(self.report), "DYPE_CACHE": str(self.out / "cache"),
            # Preloaded, the card's library reads no holes: src/driver/holes.rs.
            "LD_LIBRARY_PATH": str(libraries), "LD_PRELOAD": str(libraries / "libcuda.so.1"),
        }

    def call(self, *flags):
        """Its exit code and output, with what it says in a log."""
        self.report.unlink(missing_ok=True)
        command = [self.dype, "--device", "cuda", "--model", self.model, "--prompt", "lake", "--steps", "2", "--weights", self.weights]
        command += ["--width", str(self.side), "--height", str(self.side), *self.flags, *flags]
        with open(self.out / f"{self.name}.log", "a") as log:
            run = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        return run.returncode, run.stdout

    def row(self):
        """The row's cells, the last of which says whether all is right."""
        (self.out / f"{self.name}.log").write_text("")
        refused, said = self.call("--dry-run", "--json")
        plan = self.out / f"{self.name}.plan.json"
        plan.unlink(missing_ok=True)
        if not refused:
            plan.write_text(said)
        begin = time.monotonic()
        failed, _ = self.call("--overwrite", "--quiet", "-o", str(self.out / f"{self.name}.png"))
        took = f"{time.monotonic() - begin:.0f} s"
        if not self.report.exists():
            return ["no report: see the log", "", "", "", "", "", "", took, False]
        report = json.loads(self.report.read_text())
        if refused:
            for_memory = "--memory" in (self.out / f"{self.name}.log").read_text()
            right = failed == refused and for_memory and report["most_used_bytes"] < CHECKS
            return ["refused", "", "", "", "", "", "", took, right]
        cells, right = compared(json.loads(said)["plan"], report)
        return [*cells, took, right and not failed]


def compared(plan, report):
    """The row's cells of what was planned and what was counted, and whether they agree."""
    planned, used = max(plan["peak_bytes"].values()), report["most_used_bytes"]
    launched = {"gemm": 0, "other": 0}
    for name, kernel in report["kernels"].items():
        kind = "gemm" if name.startswith("gemm") else "other"
        elements = kernel["most_elements"] // (2 if name.startswith(WRITTEN_TWICE) else 1)
        launched[kind] = max(launched[kind], elements)
    right = not report["fault"] and not report["refused"] and abs(used / planned - 1) <= OFF
    right &= launched["other"] < LAUNCH and launched["gemm"] < BUFFER
    step, _ = phases(report, plan["image_tokens"])
    cells = [plan["weights"], gb(planned), f"{gb(used)} ({used / planned - 1:+.1%})", gb(report["most_mapped_bytes"])]
    return [*cells, f"{launched['other'] / LAUNCH:.2f}", seconds(step.seconds) if step else "", beside(report)], right


def beside(report):
    """Of streamed weights and the kernels while they travel, the share of the shorter of both in which the other was busy too."""
    streamed = report["streamed"]
    shorter = min(streamed["seconds"], streamed["compute_seconds"])
    return f"{streamed['beside_compute_seconds'] / shorter:.0%}" if shorter else ""


def gb(size):
    return f"{size / 1e9:.2f} GB"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dype")
    parser.add_argument("libraries", type=Path)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--cards", nargs="+", choices=list(CARDS), default=USUAL)
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES)
    parser.add_argument("--fp8", action="store_true", help="products in fp8, of a model that hollow.py made with fp8")
    parser.add_argument("--weights", choices=["auto", "resident", "stream"], default="auto")
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def main():
    args = arguments()
    end, right, left_out = time.monotonic() + args.seconds, True, []
    head = ["card", "size", "weights", "planned", "allocated", "mapped", "largest launch / 2^31", "step, estimate", "copies beside kernels", "run here", "right"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for side in args.sides:
        for card in args.cards:
            if time.monotonic() > end:
                left_out.append(f"{card} at {side} px")
                continue
            *cells, fine = Run(args, card, side).row()
            right &= fine
            print("| " + " | ".join([f"{CARDS[card]} ({card})", f"{side} px", *cells, "yes" if fine else "**no**"]) + " |", flush=True)
    if left_out:
        print("no time for " + ", ".join(left_out))
    return 0 if right else 1


sys.exit(main())
