"""Encodes every scene of a size once: DIR/latents-SIZE.pt holds float16 latents, their mean and their standard deviation.

    python cache.py DIR [--size 256] [--device cpu]
"""
import argparse
from pathlib import Path

import numpy as np
import torch

from data import shards
from model import Average, autoencoder


def load_autoencoder(folder, device="cpu"):
    model = autoencoder().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    saved = torch.load(Path(folder, "autoencoder.pt"), map_location=device)
    model.load_state_dict(saved["model"])
    average = Average([model], 0)
    average.load(saved["average"])
    average.swap()
    return model


@torch.no_grad()
def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--device", default="cpu")
    a.add_argument("--size", type=int, default=256)
    a.add_argument("--scenes", type=int, default=0, help="only so many, 0 for all")
    a.add_argument("--compile", action="store_true")
    a = a.parse_args()
    model = load_autoencoder(a.dir, a.device)
    encode = lambda x: model.encode(x).latent_dist.mode()
    encode = torch.compile(encode, dynamic=False) if a.compile else encode
    out = []
    for k, part in enumerate(shards(a.dir, a.size)):
        for i in range(0, len(part), 40):
            x = torch.from_numpy(np.asarray(part[i:i + 40])).to(a.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.autocast(a.device, dtype=torch.bfloat16):
                out.append(encode(x.contiguous(memory_format=torch.channels_last)).to(torch.float16).contiguous().cpu())
        print(f"shard {k}", flush=True)
        if 0 < a.scenes <= 40 * len(out):
            break
    z = torch.cat(out)
    some = z[::7].float()
    mean, std = some.mean(), some.std()
    each = some.std((0, 2, 3))
    torch.save({"latents": z, "mean": mean.item(), "std": std.item()}, Path(a.dir, f"latents-{a.size}.pt"))
    print(f"{tuple(z.shape)} mean {mean:.4f} std {std:.4f} by channel {' '.join(f'{x:.2f}' for x in each)}")


if __name__ == "__main__":
    main()
