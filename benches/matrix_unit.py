#!/usr/bin/env python3
"""The matrix unit (AMX) beside vectors: one step at FLUX.1's true widths and one picture of the demo, in turn on this machine.

    cargo build --release --locked --bench peer && cargo build --release --locked
    python3 benches/matrix_unit.py            # PyTorch beside it: benches/compare.py

Prints a Markdown table of medians of three pairs. Without a unit both columns are the same work.
"""
import os
import statistics
import tempfile

from compare import TARGET, measure, peer


def in_turn(command, pairs=3):
    """Median seconds with the unit, and without."""
    found = {"": [], "off": []}
    for _ in range(pairs):
        for unit, seconds in found.items():
            os.environ["DYPE_MATRIX_UNIT"] = unit
            seconds.append(measure(command)[0])
    return [statistics.median(seconds) for seconds in found.values()]


def main():
    step = lambda px, dtype: [peer(), "step", "--blocks", "1,2", "--px", str(px), "--dtype", dtype]
    cases = {f"step {px} px, {dtype}": step(px, dtype) for px in (1024, 2048) for dtype in ("f32", "bf16")}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("f32", "bf16"):
            cases[f"demo 1024 px, 7 steps, {dtype}"] = [
                os.path.join(TARGET, "release", "dype"), "--model", "demo", "--prompt", "a lake", "--width", "1024", "--height", "1024",
                "--steps", "7", "--dtype", dtype, "--device", "cpu", "-q", "--overwrite", "-o", os.path.join(folder, "x.png")]
        print("| case | matrix unit | vectors | time |\n|---|---|---|---|")
        for name, command in cases.items():
            unit, vectors = in_turn(command)
            print(f"| {name} | {unit:.2f} s | {vectors:.2f} s | {unit / vectors:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
