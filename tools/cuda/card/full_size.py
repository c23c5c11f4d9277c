#!/usr/bin/env python3
"""FLUX.1 at its true size through the CUDA binary on the simulated card, shapes only: what it takes against what was planned.

usage: full_size.py DYPE LIBRARIES MODEL OUT [SECONDS]

DYPE is the binary, LIBRARIES the folder of the card's libraries, MODEL what hollow.py made; reports, plans and logs go to OUT.
One row for each card and size, the small ones first; what has not begun after SECONDS (3600 unless said) is left out, by name. Exit
code 1 where a row is not right: the most that was allocated is off the plan by more than a twentieth, the card had no room, a
launch has 2^31 elements, or what does not fit was not refused for that before anything was loaded.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

CARDS = {"rtx4060": "8 GB", "rtx3060": "12 GB", "rtx4090": "24 GB", "h100": "80 GB"}
SIDES = [1024, 4096, 5792, 8192]
# Launches in 31 bits, buffers in 32: src/base/limits.rs.
LAUNCH, BUFFER = 1 << 31, 1 << 32
OFF = 0.05
# candle's softmax writes each number twice, its exponential and then its share (candle-kernels, reduce.cu).
WRITTEN_TWICE = "softmax"


class Run:
    """The binary on one card, at one size."""

    def __init__(self, paths, card, side):
        self.dype, libraries, self.model, self.out = paths
        self.name, self.side = f"full-{card}-{side}", side
        self.report = self.out / f"{self.name}.json"
        self.environment = os.environ | {
            "CARD": card, "CARD_SHAPES": "1", "CARD_REPORT": str(self.report),
            "LD_LIBRARY_PATH": str(libraries), "DYPE_CACHE": str(self.out / "cache"),
        }

    def call(self, *flags):
        """Its exit code and output, with what it says in a log."""
        self.report.unlink(missing_ok=True)
        command = [self.dype, "--device", "cuda", "--model", self.model, "--prompt", "lake", "--steps", "2"]
        command += ["--width", str(self.side), "--height", str(self.side), *flags]
        with open(self.out / f"{self.name}.log", "a") as log:
            run = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        return run.returncode, run.stdout

    def row(self):
        """The row's cells, the last of which says whether all is right."""
        (self.out / f"{self.name}.log").write_text("")
        refused, said = self.call("--dry-run", "--json")
        if not refused:
            (self.out / f"{self.name}.plan.json").write_text(said)
        failed, _ = self.call("--overwrite", "--quiet", "-o", str(self.out / f"{self.name}.png"))
        report = json.loads(self.report.read_text())
        if refused:
            for_memory = "--memory" in (self.out / f"{self.name}.log").read_text()
            right = failed == refused and for_memory and report["launches"] == 0 and report["upload_seconds"] == 0
            return ["refused", "", "", "", "", "", right]
        return self.compared(json.loads(said)["plan"], report, failed)

    def compared(self, plan, report, failed):
        planned, used = max(plan["peak_bytes"].values()), report["most_used_bytes"]
        launched = {"gemm": 0, "other": 0}
        for name, kernel in report["kernels"].items():
            kind = "gemm" if name.startswith("gemm") else "other"
            elements = kernel["most_elements"] // (2 if name.startswith(WRITTEN_TWICE) else 1)
            launched[kind] = max(launched[kind], elements)
        right = not failed and not report["fault"] and not report["refused"] and abs(used / planned - 1) <= OFF
        right &= launched["other"] < LAUNCH and launched["gemm"] < BUFFER
        seconds = step_seconds(report, plan["image_tokens"])
        return [plan["weights"], gb(planned), f"{gb(used)} ({used / planned - 1:+.1%})", gb(report["most_mapped_bytes"]),
                f"{launched['other'] / LAUNCH:.2f}", f"{seconds:.1f} s" if seconds else "", right]


def step_seconds(report, tokens):
    """The second step by the roofline: from the latents after the first to those after the second."""
    latents = 4 * 64 * tokens
    ends = [end for end, size in report["downloads"] if size == latents]
    return ends[1] - ends[0] if len(ends) > 1 else None


def gb(size):
    return f"{size / 1e9:.2f} GB"


def main(dype, libraries, model, out, seconds="3600"):
    paths = (dype, Path(libraries).resolve(), model, Path(out).resolve())
    paths[3].mkdir(parents=True, exist_ok=True)
    end, right, left_out = time.monotonic() + float(seconds), True, []
    head = ["card", "size", "weights", "planned", "allocated", "mapped", "largest launch / 2^31", "step, estimate", "right"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for side in SIDES:
        for card, memory in CARDS.items():
            if time.monotonic() > end:
                left_out.append(f"{memory} at {side} px")
                continue
            *cells, fine = Run(paths, card, side).row()
            right &= fine
            print("| " + " | ".join([memory, f"{side} px", *cells, "yes" if fine else "**no**"]) + " |", flush=True)
    if left_out:
        print("no time for " + ", ".join(left_out))
    return 0 if right else 1


sys.exit(main(*sys.argv[1:]))
