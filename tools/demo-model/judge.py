"""What names pictures: a classifier of kind and time, whose features carry the Frechet distances. `finder.py` counts suns and horizons.

It is trained on rendered scenes alone and knows nothing of the models it judges.

    python judge.py DIR [--steps 600]        trains it into DIR/judge.pt and says how good it is on unseen scenes
"""
import argparse
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import fit
from data import FIRST_SEED, shards
from finder import shrink, to_tensor
from scenes import KINDS, TIMES, Scene, render

PATCH_PX = 128        # side of a native-resolution patch, and of the whole picture as the classifier sees it


class Judge(nn.Module):
    """[B, 3, 128, 128] to (kind logits, time logits, features [B, 48])."""

    def __init__(self):
        super().__init__()
        widths, layers = (3, 24, 32, 48, 48), []
        for i, o in zip(widths, widths[1:]):
            layers += [nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU(), nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.mix = nn.Linear(48 * 16, 48)
        self.kind, self.time = nn.Linear(48, len(KINDS)), nn.Linear(48, len(TIMES))

    def forward(self, x):
        f = self.mix(F.adaptive_avg_pool2d(self.body(x), 4).flatten(1))
        return self.kind(F.relu(f)), self.time(F.relu(f)), f


def train(folder, steps):
    torch.manual_seed(3)
    r = np.random.default_rng(3)
    parts = shards(folder)
    with Pool(2) as pool:
        big = pool.starmap(render, [(Scene.of(s), 1024, 1024) for s in range(2000, 2060)])
    big_scenes = [Scene.of(s) for s in range(2000, 2060)]
    judge = Judge()

    def loss():
        x, kinds, times, weight = [], [], [], []
        for _ in range(32):                          # whole pictures and native patches of small and large scenes
            k, i = int(r.integers(len(parts))), int(r.integers(1000))
            scene, picture = Scene.of(FIRST_SEED + k * 1000 + i), np.asarray(parts[k][i])
            if r.random() < .25:
                j = int(r.integers(len(big)))
                scene, picture = big_scenes[j], big[j]
            whole = r.random() < .5
            if whole:
                t = shrink(to_tensor([picture]), PATCH_PX)[0]
            else:
                y0, x0 = r.integers(0, picture.shape[0] - PATCH_PX + 1, 2)
                t = to_tensor([picture[y0:y0 + PATCH_PX, x0:x0 + PATCH_PX]])[0]
            x.append(t.flip(2) if r.random() < .5 else t)
            kinds.append(KINDS.index(scene.kind))
            times.append(TIMES.index(scene.time))
            weight.append(1.0 if whole else .4)      # a patch of sky does not tell the kind
        k, t, _ = judge(torch.stack(x))
        w = torch.tensor(weight)
        return (w * (F.cross_entropy(k, torch.tensor(kinds), reduction="none") + F.cross_entropy(t, torch.tensor(times), reduction="none"))).mean()

    return fit.fit(judge, loss, Path(folder, "judge.pt"), steps, rate=2e-3, warmup=40, every=50)


def load(folder):
    return fit.load(Judge(), Path(folder, "judge.pt"))


@torch.no_grad()
def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--steps", type=int, default=600)
    a = a.parse_args()
    with torch.enable_grad():
        judge = train(a.dir, a.steps)
    for size in (256, 1024):
        n = 240 if size == 256 else 48
        found = [Scene.of(s) for s in range(n)]
        x = [to_tensor([render(s, size, size)]) for s in found]
        k, t, _ = judge(torch.cat([shrink(p, PATCH_PX) for p in x]))
        right = [(o.argmax(1) == torch.tensor(want)).float().mean().item() for o, want in ((k, [KINDS.index(s.kind) for s in found]), (t, [TIMES.index(s.time) for s in found]))]
        print(f"{n} unseen scenes of {size} px: kind {right[0]:.3f}, time {right[1]:.3f}")


if __name__ == "__main__":
    main()
