"""What counts suns and horizons in a picture: trained on rendered scenes alone, it knows nothing of the models it judges.

    python finder.py DIR [--steps 1600]        trains it into DIR/finder.pt and says how good it is on unseen scenes

A sun may be lumpy, cut by a peak, blurred or one of several, so scenes are bent, softened, tiled and cropped for it; snow, glints on
water, lit windows and bright clouds are none, and the loss is a focal one, which asks most where it is surest and wrong.
"""
import argparse
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import fit
from scenes import Scene, render_with_sun

PX = 256              # side of a picture as the finder sees it
CELLS = 64            # and of its maps
SURE = .4             # a peak above this is a sun
BATCH = 12
SCENES = range(3000, 4200)


def scaled(bytes):
    """From 0 to 255 to -1 to 1."""
    return bytes.float() / 127.5 - 1


def to_tensor(pictures):
    return scaled(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def shrink(x, side):
    """Area average to side x side."""
    return F.interpolate(x, size=(side, side), mode="area")


class Finder(nn.Module):
    """[B, 3, 256, 256] to the logits of a sun's centre and of a horizon, [B, 2, 64, 64]."""

    def __init__(self):
        super().__init__()
        def conv(i, o, stride=1, dilation=1):
            return nn.Sequential(nn.Conv2d(i, o, 3, stride, dilation, dilation), nn.BatchNorm2d(o), nn.ReLU())
        self.body = nn.Sequential(
            conv(3, 16, 2), conv(16, 32, 2), conv(32, 32), conv(32, 32, 1, 2), conv(32, 32, 1, 4), conv(32, 32, 1, 8), conv(32, 32), nn.Conv2d(32, 2, 1))
        nn.init.constant_(self.body[-1].bias, -4.0)          # both are rare

    def forward(self, x):
        return self.body(x)

    @torch.no_grad()
    def find(self, x):
        """For each picture, any size: its suns as (u, v), shares of width and height, and how many horizons stand above each other.

        A sun is a peak of its map, at least 5 cells from others. Horizons are peaks above one half along a column of the other map,
        and a picture has as many as the median of its columns.
        """
        suns, lines = self(shrink(x, PX)).sigmoid().unbind(1)
        peaks = (suns > SURE) & (suns == F.max_pool2d(suns[:, None], 9, 1, 4)[:, 0])
        ridges = (lines > .5) & (lines == F.max_pool2d(lines[:, None], (9, 1), 1, (4, 0))[:, 0])
        found = [[((b + .5) / CELLS, (a + .5) / CELLS) for a, b in peak.nonzero().tolist()] for peak in peaks]
        return list(zip(found, ridges.sum(1).median(1).values.tolist()))


def spot(seed, px=2 * PX):
    """A scene's picture as the finder sees it, and where its sun and its horizon are."""
    scene = Scene.of(seed)
    picture, sun = render_with_sun(scene, px, px)
    small = shrink(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), PX)[0]
    return small.byte(), sun, scene.horizon


def bump(at):
    """A bell around the cell that a place, in cells, is in: one there, [CELLS]."""
    return torch.exp(-(torch.arange(CELLS) - float(np.floor(at))) ** 2 / 2.0)


def points(suns):
    """The map of suns at places (x, y) in cells."""
    heat = torch.zeros(CELLS, CELLS)
    for x, y in suns:
        heat = torch.maximum(heat, bump(y)[:, None] * bump(x))
    return heat


def tiled(spots, r):
    """A picture of n x n scenes, n from 1 to 4, its suns in cells, the map of its horizons, and n: what a repeated layout looks like."""
    n = int(r.choice([1, 1, 1, 2, 3, 4]))
    side, cells = PX // n, CELLS / n
    same = r.random() < .5
    pick = r.integers(len(spots))
    image, suns, lines = torch.zeros(3, PX, PX), [], torch.zeros(CELLS, CELLS)
    for y in range(n):
        for x in range(n):
            picture, (u, v), horizon = spots[pick if same else r.integers(len(spots))]
            image[:, y * side:(y + 1) * side, x * side:(x + 1) * side] = shrink(scaled(picture[None]), side)[0]
            suns.append(((x + u) * cells, (y + v) * cells))
            tile = slice(int(x * cells), int((x + 1) * cells))
            lines[:, tile] = torch.maximum(lines[:, tile], bump((y + horizon) * cells)[:, None])
    return image, suns, lines, n


def cropped(image, suns, lines, r):
    """A part of it, half to nine tenths of each side, at the whole's size: where the sun is outside there is none."""
    side = int(r.uniform(.5, .9) * CELLS)
    y0, x0 = r.integers(0, CELLS - side + 1, 2)
    larger = lambda t, px: F.interpolate(t[None], size=(px, px), mode="bilinear")[0]
    image = larger(image[:, 4 * y0:4 * (y0 + side), 4 * x0:4 * (x0 + side)], PX)
    lines = larger(lines[None, y0:y0 + side, x0:x0 + side], CELLS)[0]
    return image, [((x - x0) * CELLS / side, (y - y0) * CELLS / side) for x, y in suns], lines


def bent(image, r):
    """Edges moved by up to a third of a sun's width, along smooth fields: lumps, not circles."""
    field = sum(F.interpolate(torch.from_numpy(r.normal(0, s, (1, 2, n, n))).float(), size=(PX, PX), mode="bicubic") for n, s in ((12, .012), (32, .008)))
    y, x = torch.meshgrid(*[(torch.arange(PX) + .5) / PX * 2 - 1] * 2, indexing="ij")
    return F.grid_sample(image[None], torch.stack([x, y], -1)[None] + r.uniform(.3, 1) * field.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)[0]


def worn(image, r):
    """Softer, flatter, darker or noisier."""
    if r.random() < .4:
        image = F.interpolate(shrink(image[None], int(r.integers(PX // 3, PX))), size=(PX, PX), mode="bilinear")[0]
    image = image * float(r.uniform(.8, 1.1)) + torch.from_numpy(r.normal(0, .05, (3, 1, 1))).float()
    noise = torch.from_numpy(r.normal(0, 1, (3, PX, PX))).float() * float(r.choice([0, 0, .03, .06]))
    return (image + noise).clamp(-1, 1)


def example(spots, r):
    """A picture to learn from, its maps [2, 64, 64], and which cells count in the first: a sun cut by the border is neither one nor none."""
    image, suns, lines, n = tiled(spots, r)
    if n == 1 and r.random() < .4:
        image, suns, lines = cropped(image, suns, lines, r)
    whole, near = (lambda p, m: all(m <= c < CELLS - m for c in p)), 4
    heat = torch.stack([points([p for p in suns if whole(p, 0)]), lines])
    counts = 1 - (points([p for p in suns if whole(p, -8) and not whole(p, near)]) > 1e-4).float()
    image = bent(image, r) if r.random() < .6 else image
    image = worn(image, r)
    return [t.flip(-1) for t in (image, heat, counts)] if r.random() < .5 else [image, heat, counts]


def focal(logits, heat):
    """Of centres: little for what is nearly right, much for what is surely wrong (the form of CornerNet's, with 2 and 4), over the number of suns."""
    p, hit = logits.sigmoid(), heat > .9
    right = (1 - p) ** 2 * F.logsigmoid(logits)
    wrong = (1 - heat) ** 4 * p ** 2 * F.logsigmoid(-logits)
    return -torch.where(hit, right, wrong), hit


def loss_of(out, heat, counts):
    """Suns are points, horizons whole rows."""
    each, hits = focal(out[:, 0], heat[:, 0])
    suns = (each * counts).sum() / (hits * counts).sum().clamp(min=1)
    lines = F.binary_cross_entropy_with_logits(out[:, 1], heat[:, 1], reduction="none") * (1 + 4 * heat[:, 1])
    return suns + 4 * lines.mean()


def train(folder, steps):
    torch.manual_seed(4)
    r = np.random.default_rng(4)
    with Pool(2) as pool:
        spots = pool.map(spot, SCENES, chunksize=20)
    finder = Finder()

    def loss():
        image, heat, counts = (torch.stack(t) for t in zip(*(example(spots, r) for _ in range(BATCH))))
        return loss_of(finder(image), heat, counts)

    return fit.fit(finder, loss, Path(folder, "finder.pt"), steps, rate=3e-3, warmup=50, every=100)


def load(folder):
    return fit.load(Finder(), Path(folder, "finder.pt"))


def report(finder):
    """How many of unseen scenes, whole, bent and tiled, are counted right."""
    r = np.random.default_rng(5)
    for px in (512, 1024):
        seen = [finder.find(scaled(spot(s, px)[0][None]))[0] for s in range(120 if px == 512 else 48)]
        print(f"{len(seen)} unseen scenes of {px} px: exactly one sun {np.mean([len(s) == 1 for s, _ in seen]):.3f}, one horizon {np.mean([h == 1 for _, h in seen]):.3f}")
    with Pool(2) as pool:
        spots = pool.map(spot, range(4200, 4300))
    lumpy = [finder.find(worn(bent(scaled(p), r), r)[None])[0] for p, _, _ in spots]
    print(f"{len(lumpy)} unseen scenes bent and worn: exactly one sun {np.mean([len(s) == 1 for s, _ in lumpy]):.3f}")
    drawn = [tiled(spots, r) for _ in range(240)]
    for n in (1, 2, 3, 4):
        counts = [finder.find(image[None])[0] for image, _, _, k in drawn if k == n]
        suns, horizons = np.mean([len(s) == n * n for s, _ in counts]), np.mean([h == n for _, h in counts])
        print(f"{len(counts)} unseen scenes tiled {n} x {n}: suns counted right {suns:.3f}, horizons {horizons:.3f}")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--steps", type=int, default=1600)
    a = a.parse_args()
    report(train(a.dir, a.steps))


if __name__ == "__main__":
    main()
