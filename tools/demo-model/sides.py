"""How much of what a caption says of the sun's side the model knows before it sees anything.

    python sides.py DIR [--weights refined.pt]

At a time near 1 a picture is noise, and what a velocity leads to is the mean of the scenes that the caption says. The mean of those with the
sun on the left less that of those with it on the right is known from the scenes (on a grid of 8 x 8, mirrored halves alike); the model's is that of two
captions that differ in the word. Their regression is 1 where the model knows it all, 0 where it knows nothing; the correlation says whether what it
believes looks like it. From pure noise, for pictures of a quarter of the side, half of it and all.
"""
import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import asked
from asked import SIDES, numbers, prompt
from export import load_flow
from model import unpack
from refine import PHASES, Batches
from train_flow import rope, velocity

GRID = 8
CAPTIONS = 24
SCENES = 500
TIMES = [.99, .9, .8]


def of_scenes(data):
    """The difference [16, 8, 8] in the scenes."""
    sides = np.array([asked.side(u) for u in data.across])

    def mean(side):
        index = np.random.default_rng(0).permutation(np.flatnonzero(sides == side))[:SCENES]
        return torch.stack([F.adaptive_avg_pool2d(data.at(np.array([i]), 1)[0], GRID) for i in index]).mean(0)

    difference = mean(0) - mean(2)
    return (difference - difference.flip(-1)) / 2


def captions():
    """Pairs that differ in the side alone."""
    for i in numbers(CAPTIONS, "choice"):
        text = prompt(i)[0]
        own = next(s for s in SIDES if s in text)
        yield text.replace(own, SIDES[0]), text.replace(own, SIDES[2])


@torch.no_grad()
def of_model(m, left, right, table, side, t):
    """The difference [16, 8, 8] in what the model expects of noise."""
    x = t * torch.randn(CAPTIONS, side * side, 64, generator=torch.Generator().manual_seed(1))
    both = [torch.cat(c) for c in zip(left, right)]
    v = velocity(m, torch.cat([x, x]), torch.full((2 * CAPTIONS,), t), torch.ones(2 * CAPTIONS), *both, table)
    difference = t * (v[CAPTIONS:] - v[:CAPTIONS]).mean(0, keepdim=True)
    return F.adaptive_avg_pool2d(unpack(difference, 2 * side, 2 * side)[0], GRID)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir", type=Path)
    a.add_argument("--weights", default="refined.pt")
    a = a.parse_args()
    torch.set_num_threads(2)
    m, text = load_flow(a.dir, a.weights)
    true = of_scenes(Batches(a.dir, 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            left, right = (text(list(texts)) for texts in zip(*captions()))
        for name, (side, stride, _) in PHASES.items():
            table = rope(m, side, side, 24, stride)
            for t in TIMES:
                found = of_model(m, left, right, table, side, t)
                product = (found * true).sum()
                print(f"{name}, t = {t}: {product / (true * true).sum():.2f} of it, correlation {product / (found.norm() * true.norm()):.2f}", flush=True)


if __name__ == "__main__":
    main()
