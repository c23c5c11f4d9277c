"""A contact sheet from a checkpoint, at the training size, without the export: a quick look while it trains.

    python sample.py DIR sheet.png [--weights flow.pt] [--guidance 2.5] [--steps 16] [--half]
"""
import argparse

import numpy as np
import torch

from cache import load_autoencoder, statistics
from export import load_flow
from model import sigmas, unpack
from train_flow import rope, velocity

PROMPTS = ["snowy mountains at noon", "snowy peaks at sunset", "a mountain landscape at night", "a calm lake below snowy mountains at sunset", "a lake at dawn, a few clouds", "a city skyline at night",
           "skyscrapers at sunset", "a desert at noon", "sand dunes at dawn", "the sea at sunset, the sun in the middle", "the ocean at night, the moon on the left", "a pine forest in the morning"]


@torch.no_grad()
def pictures(m, text, vae, mean, std, prompts, side=32, stride=1.0, guidance=2.5, steps=16, seed=0, distilled=False):
    x = torch.randn(len(prompts), side * side, 64, generator=torch.Generator().manual_seed(seed))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled, embeds = text(list(prompts) + [""])
        none = pooled[-1:].expand(len(prompts), -1), embeds[-1:].expand(len(prompts), -1, -1)
        table, s = rope(m, side, side, 24, stride), sigmas(steps)
        for a, b in zip(s, s[1:]):
            t, g = a.expand(len(prompts)), torch.full((len(prompts),), guidance if distilled else 1.0)
            v = velocity(m, x, t, g, pooled[:-1], embeds[:-1], table)
            if not distilled and guidance != 1:
                u = velocity(m, x, t, g, *none, table)
                v = u + guidance * (v - u)
            x = x + (b - a) * v
        y = vae.decode(unpack(x, side * 2, side * 2) * std + mean).sample.float()
    return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def main():
    from PIL import Image
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("out")
    a.add_argument("--weights", default="flow.pt")
    a.add_argument("--guidance", type=float, default=2.5)
    a.add_argument("--steps", type=int, default=16)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--half", action="store_true", help="half-size pictures, as the half phase trains them")
    a = a.parse_args()
    m, text = load_flow(a.dir, a.weights)
    p = pictures(m, text, load_autoencoder(a.dir), *statistics(a.dir), PROMPTS, 16 if a.half else 32, 2.0 if a.half else 1.0, guidance=a.guidance, steps=a.steps, seed=a.seed, distilled=a.weights != "flow.pt")
    Image.fromarray(np.concatenate([np.concatenate(list(p[i:i + 4]), 1) for i in range(0, len(p), 4)])).save(a.out)


if __name__ == "__main__":
    main()
