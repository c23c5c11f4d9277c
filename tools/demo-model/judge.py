"""What looks at pictures: a classifier of kind and time (its features carry the Frechet distances) and a finder of suns.

Both are trained on rendered scenes alone and know nothing of the model they judge.

    python judge.py DIR [--steps 600]        trains both into DIR/judge.pt and says how good they are on unseen scenes
"""
import argparse
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from data import FIRST_SEED, shards
from scenes import KINDS, TIMES, Scene, render, render_with_sun

PATCH_PX = 128        # side of a native-resolution patch, and of the whole picture as the classifier sees it
FINDER_PX = 256


def to_tensor(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def shrink(x, side):
    """Area average to side x side."""
    return F.interpolate(x, size=(side, side), mode="area")


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


class Finder(nn.Module):
    """[B, 3, 256, 256] to the logits of a sun's centre, [B, 64, 64]."""

    def __init__(self):
        super().__init__()
        def conv(i, o, stride=1, dilation=1):
            return nn.Sequential(nn.Conv2d(i, o, 3, stride, dilation, dilation), nn.BatchNorm2d(o), nn.ReLU())
        self.body = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), conv(32, 32), conv(32, 32, 1, 2), conv(32, 32, 1, 4), conv(32, 32), nn.Conv2d(32, 1, 1))

    def forward(self, x):
        return self.body(x)[:, 0]

    @torch.no_grad()
    def count(self, x):
        """Suns in each picture, any size: peaks of the map above one half, at least 5 cells apart."""
        p = self(shrink(x, FINDER_PX)).sigmoid()
        peak = (p > .5) & (p == F.max_pool2d(p[:, None], 9, 1, 4)[:, 0])
        return peak.flatten(1).sum(1)


def spot(seed):
    return render_with_sun(Scene.of(seed), 256, 256)


def collage(spots, r):
    """A picture of one, four or sixteen scenes, and the map of its suns: what a repeated layout looks like."""
    n = int(r.choice([1, 1, 2, 3, 4]))
    side = FINDER_PX // n
    same = r.random() < .5
    pick = r.integers(len(spots))
    image, heat = torch.zeros(3, FINDER_PX, FINDER_PX), torch.zeros(64, 64)
    grid = torch.arange(64) + .5
    for y in range(n):
        for x in range(n):
            picture, (u, v) = spots[pick if same else r.integers(len(spots))]
            t = to_tensor([picture])
            image[:, y * side:(y + 1) * side, x * side:(x + 1) * side] = shrink(t, side)[0]
            cx, cy = (x + u) * side / 4, (y + v) * side / 4
            heat = torch.maximum(heat, torch.exp(-((grid[:, None] - cy) ** 2 + (grid[None] - cx) ** 2) / 2.0))
    if r.random() < .5:
        image, heat = image.flip(2), heat.flip(1)
    return image, heat


def train(folder, steps, log=print):
    torch.manual_seed(3)
    r = np.random.default_rng(3)
    parts = shards(folder)
    with Pool(2) as pool:
        big = pool.starmap(render, [(Scene.of(s), 1024, 1024) for s in range(2000, 2060)])
        spots = pool.map(spot, range(3000, 3600))
    big_scenes = [Scene.of(s) for s in range(2000, 2060)]
    judge, finder = Judge(), Finder()
    opt = torch.optim.AdamW([*judge.parameters(), *finder.parameters()], lr=2e-3, weight_decay=.01)
    for step in range(steps):
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (step + 1) / 40) * (1.02 - step / steps)
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
        loss = (w * (F.cross_entropy(k, torch.tensor(kinds), reduction="none") + F.cross_entropy(t, torch.tensor(times), reduction="none"))).mean()
        pairs = [collage(spots, r) for _ in range(12)]
        heat = torch.stack([h for _, h in pairs])
        out = finder(torch.stack([i for i, _ in pairs]))
        loss = loss + (F.binary_cross_entropy_with_logits(out, heat, reduction="none") * (1 + 30 * heat)).mean() * 4
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 50 == 49:
            log(f"step {step + 1} loss {loss.item():.3f}", flush=True)
    judge.eval(), finder.eval()
    torch.save({"judge": judge.state_dict(), "finder": finder.state_dict()}, Path(folder, "judge.pt"))
    return judge, finder


def load(folder):
    s = torch.load(Path(folder, "judge.pt"))
    judge, finder = Judge().eval(), Finder().eval()
    judge.load_state_dict(s["judge"])
    finder.load_state_dict(s["finder"])
    return judge, finder


@torch.no_grad()
def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--steps", type=int, default=600)
    a = a.parse_args()
    with torch.enable_grad():
        judge, finder = train(a.dir, a.steps)
    for size in (256, 1024):
        n = 240 if size == 256 else 48
        found = [Scene.of(s) for s in range(n)]
        x = [to_tensor([render(s, size, size)]) for s in found]
        k, t, _ = judge(torch.cat([shrink(p, PATCH_PX) for p in x]))
        right = [(o.argmax(1) == torch.tensor(want)).float().mean().item() for o, want in ((k, [KINDS.index(s.kind) for s in found]), (t, [TIMES.index(s.time) for s in found]))]
        suns = torch.cat([finder.count(p) for p in x])
        print(f"unseen scenes at {size} px: kind {right[0]:.3f} time {right[1]:.3f} exactly one sun {(suns == 1).float().mean():.3f}")


if __name__ == "__main__":
    main()
