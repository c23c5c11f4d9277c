#!/usr/bin/env python3
"""What runs of full_size.py would take on their cards: seconds of a step and of the decode, what they go to, and what bounds them.

usage: roofline.py OUT [PREDICTIONS]      OUT is full_size.py's; PREDICTIONS a file for benches/gpu.py

An estimate: no card has said so. The rule: each kernel takes the larger of its bytes over the card's bandwidth and its operations over
the card's rate, 2 microseconds at least; what a kernel reads twice counts twice, as if there were no cache. Copies from the host take
their bytes over PCI Express, beside the kernels where the program lets them. Reading files takes no time, and neither does the host.
"""
import json
import sys
from pathlib import Path

PARTS = ["products", "attention", "passes", "copies"]
# What a context takes of a card beside what a program allocates: src/device/card.rs.
CONTEXT = 480 << 20


class Phase:
    """What lies between two copies to the host: rows of [end, bytes, seconds of each part until then, bytes allocated, mapped]."""

    def __init__(self, downloads, first, last):
        before, after = downloads[first], downloads[last]
        self.seconds = after[0] - before[0]
        self.parts = dict(zip(PARTS, (b - a for a, b in zip(before[2:6], after[2:6]))))
        self.used, self.mapped = (max(row[at] for row in downloads[first + 1:last + 1]) for at in (6, 7))

    def bound(self):
        """The copies where they take longer than all kernels, else the largest part of those."""
        kernels = {part: self.parts[part] for part in PARTS[:3]}
        return "copies" if self.parts["copies"] > sum(kernels.values()) else max(kernels, key=kernels.get)


def phases(report, tokens):
    """The second step, from the first latents to the next, and the decode, from the last latents to the last row of the picture."""
    downloads = report["downloads"]
    ends = [at for at, row in enumerate(downloads) if row[1] == 4 * 64 * tokens]
    step = Phase(downloads, ends[0], ends[1]) if len(ends) > 1 else None
    decode = Phase(downloads, ends[-1], len(downloads) - 1) if ends and ends[-1] + 1 < len(downloads) else None
    return step, decode


def seconds(found):
    return f"{found:.2f} s" if found < 10 else f"{found:.0f} s"


def of_run(path):
    """(the card's name, its bytes, pixels of a side, plan, step, decode) of a run's report."""
    report, plan = json.loads(path.read_text()), json.loads(path.with_suffix(".plan.json").read_text())["plan"]
    return (report, plan["image_tokens"], plan["weights"], *phases(report, plan["image_tokens"]))


def cells(phase):
    if phase is None:
        return ["", "", "", "", ""]
    return [seconds(phase.seconds), *(f"{phase.parts[part]:.2f}" for part in PARTS), phase.bound()]


def main(out, predictions=None):
    paths = sorted(path for path in Path(out).glob("full-*.json") if path.with_suffix(".plan.json").exists())
    runs = [run for run in map(of_run, paths) if not run[0]["fault"] and not run[0]["refused"]]
    runs.sort(key=lambda run: (run[1], run[0]["card_bytes"], run[0]["card"], run[2]))
    head = ["card", "size", "weights", "stage", "takes", *PARTS, "bound by"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    found = {}
    for report, tokens, weights, step, decode in runs:
        px = 16 * round(tokens ** .5)
        for stage, phase in (("step", step), ("decode", decode)):
            if phase is None:
                continue
            print("| " + " | ".join([report["card"], f"{px} px", weights, stage, *cells(phase)]) + " |")
            row = {"px": px, "weights": weights, "stage": stage, "seconds": round(phase.seconds, 3)}
            row |= {"bytes": phase.mapped + CONTEXT, "bound": phase.bound()}
            found.setdefault(report["card"], []).append(row)
    if predictions:
        rows = lambda name: ",\n    ".join(map(json.dumps, found[name]))
        cards = ",\n".join(f"  {json.dumps(name)}: [\n    {rows(name)}\n  ]" for name in sorted(found))
        Path(predictions).write_text("{\n" + cards + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
