"""What looks at pictures: a classifier of kind and time (its features carry the Frechet distances) and a finder of suns and horizons.

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
    """[B, 3, 256, 256] to the logits of a sun's centre and of a horizon, [B, 2, 64, 64]."""

    def __init__(self):
        super().__init__()
        def conv(i, o, stride=1, dilation=1):
            return nn.Sequential(nn.Conv2d(i, o, 3, stride, dilation, dilation), nn.BatchNorm2d(o), nn.ReLU())
        self.body = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), conv(32, 32), conv(32, 32, 1, 2), conv(32, 32, 1, 4), conv(32, 32), nn.Conv2d(32, 2, 1))

    def forward(self, x):
        return self.body(x)

    @torch.no_grad()
    def find(self, x):
        """For each picture, any size: its suns as (u, v), shares of width and height, and how many horizons stand above each other.

        A sun is a peak of its map above one half, at least 5 cells from others. Horizons are such peaks along a column of the other map,
        and a picture has as many as the median of its columns.
        """
        suns, lines = self(shrink(x, FINDER_PX)).sigmoid().unbind(1)
        peaks = (suns > .5) & (suns == F.max_pool2d(suns[:, None], 9, 1, 4)[:, 0])
        ridges = (lines > .5) & (lines == F.max_pool2d(lines[:, None], (9, 1), 1, (4, 0))[:, 0])
        found = [[((b + .5) / 64, (a + .5) / 64) for a, b in peak.nonzero().tolist()] for peak in peaks]
        return list(zip(found, ridges.sum(1).median(1).values.tolist()))


def spot(seed):
    """A scene's picture, and where its sun and its horizon are."""
    scene = Scene.of(seed)
    return *render_with_sun(scene, 256, 256), scene.horizon


def collage(spots, r):
    """A picture of n x n scenes, n from 1 to 4, the maps of its suns and horizons, and n: what a repeated layout looks like."""
    n = int(r.choice([1, 1, 2, 3, 4]))
    side = FINDER_PX // n
    same = r.random() < .5
    pick = r.integers(len(spots))
    image, heat = torch.zeros(3, FINDER_PX, FINDER_PX), torch.zeros(2, 64, 64)
    grid = torch.arange(64) + .5
    for y in range(n):
        for x in range(n):
            picture, (u, v), horizon = spots[pick if same else r.integers(len(spots))]
            t = to_tensor([picture])
            image[:, y * side:(y + 1) * side, x * side:(x + 1) * side] = shrink(t, side)[0]
            cx, cy = (x + u) * side / 4, (y + v) * side / 4
            heat[0] = torch.maximum(heat[0], torch.exp(-((grid[:, None] - cy) ** 2 + (grid[None] - cx) ** 2) / 2.0))
            tile = slice(x * side // 4, (x + 1) * side // 4)
            heat[1, :, tile] = torch.maximum(heat[1, :, tile], torch.exp(-(grid[:, None] - (y + horizon) * side / 4) ** 2 / 2.0))
    if r.random() < .5:
        image, heat = image.flip(2), heat.flip(2)
    return image, heat, n


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
        heat = torch.stack([h for _, h, _ in pairs])
        out = finder(torch.stack([i for i, _, _ in pairs]))
        worth = 1 + torch.tensor([30.0, 4.0])[:, None, None] * heat          # suns are few cells, horizons whole rows
        loss = loss + (F.binary_cross_entropy_with_logits(out, heat, reduction="none") * worth).mean((0, 2, 3)).sum() * 4
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
        seen = [finder.find(p)[0] for p in x]
        one = [np.mean([n == 1 for n in counts]) for counts in ([len(suns) for suns, _ in seen], [horizons for _, horizons in seen])]
        print(f"unseen scenes at {size} px: kind {right[0]:.3f} time {right[1]:.3f} exactly one sun {one[0]:.3f} one horizon {one[1]:.3f}")
    r, spots = np.random.default_rng(5), [spot(s) for s in range(4000, 4040)]
    drawn = [collage(spots, r) for _ in range(240)]
    for n in (1, 2, 3, 4):
        counts = [finder.find(image[None])[0] for image, _, k in drawn if k == n]
        suns, horizons = np.mean([len(s) == n * n for s, _ in counts]), np.mean([h == n for _, h in counts])
        print(f"{len(counts)} unseen collages of {n} x {n}: suns counted right {suns:.3f}, horizons {horizons:.3f}")


if __name__ == "__main__":
    main()
