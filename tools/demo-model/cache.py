"""Encodes every scene of a size once: DIR/latents-SIZE.pt holds float16 latents, their mean and their standard deviation.

    python cache.py DIR [--size 256] [--mirrored] [--device cpu]

Goes on from the shards that are there, DIR/latents-SIZE/*.npy.
"""
import argparse
from pathlib import Path

import numpy as np
import torch

from data import shards
from model import BASE_PX, Average, autoencoder


def load_autoencoder(folder, device="cpu"):
    model = autoencoder().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    saved = torch.load(Path(folder, "autoencoder.pt"), map_location=device)
    model.load_state_dict(saved["model"])
    average = Average([model], 0)
    average.load(saved["average"])
    average.swap()
    return model


def statistics(folder):
    """The latents' mean and standard deviation, which the model was trained with: those of the small scenes where there are any."""
    paths = [Path(folder, f"latents-{size}.pt") for size in (256, BASE_PX)]
    d = torch.load(next(path for path in paths if path.exists()), mmap=True)
    return d["mean"], d["std"]


@torch.no_grad()
def encoded(encode, pictures, flip, device):
    """Latents of a shard, float16."""
    out = []
    for i in range(0, len(pictures), 40):
        x = torch.from_numpy(np.array(pictures[i:i + 40])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = x.flip(3) if flip else x
        with torch.autocast(device, dtype=torch.bfloat16):
            out.append(encode(x.contiguous(memory_format=torch.channels_last)).to(torch.float16).contiguous().cpu())
    return torch.cat(out)


def is_mirrored(k):
    """Whether `--mirrored` takes this shard in its other hand."""
    return k % 2 == 1


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--device", default="cpu")
    a.add_argument("--size", type=int, default=256)
    a.add_argument("--shards", type=int, default=0, help="only so many, 0 for all")
    a.add_argument("--mirrored", action="store_true", help="every second shard in its other hand: refine.py's captions say it")
    a.add_argument("--compile", action="store_true")
    a = a.parse_args()
    model, parts = load_autoencoder(a.dir, a.device), Path(a.dir, f"latents-{a.size}")
    encode = lambda x: model.encode(x).latent_dist.mode()
    encode = torch.compile(encode, dynamic=False) if a.compile else encode
    parts.mkdir(exist_ok=True)
    out = []
    for k, part in enumerate(shards(a.dir, a.size)[:a.shards or None]):
        path = parts / f"{k:04d}.npy"
        if not path.exists():
            np.save(parts / "part.npy", encoded(encode, part, a.mirrored and is_mirrored(k), a.device).numpy())
            (parts / "part.npy").rename(path)
            print(f"shard {k}", flush=True)
        out.append(torch.from_numpy(np.load(path)))
    z = torch.cat(out)
    some = z[::7].float()
    saved = torch.load(Path(a.dir, "autoencoder.pt"), map_location="cpu")
    mean, std = saved.get("mean", some.mean().item()), saved.get("std", some.std().item())     # an autoencoder that was exported has its own
    torch.save({"latents": z, "mean": mean, "std": std, "mirrored": a.mirrored}, Path(a.dir, f"latents-{a.size}.pt"))
    each = some.std((0, 2, 3))
    print(f"{tuple(z.shape)} mean {some.mean():.4f} std {some.std():.4f} by channel {' '.join(f'{x:.2f}' for x in each)}")


if __name__ == "__main__":
    main()
