"""What the demo model's latents look like: the colours of its previews, for the autoencoder's config.json.

    dype --model demo --prompts prompts.txt -n 2 --width 512 --height 512 -q -o out/ --save-latents latents/l.safetensors > paths.txt
    python3 colours.py paths.txt latents/l.safetensors

A linear map from the 16 channels of a latent to the mean colour of its 8 x 8 pixels, by least squares.
"""
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file


def pair(picture, latents):
    tokens = next(iter(load_file(latents).values()))[0]  # [N, 64]
    side = int(len(tokens) ** 0.5)
    x = tokens.reshape(side, side, 16, 2, 2).transpose(0, 3, 1, 4, 2).reshape(-1, 16)
    rgb = np.asarray(Image.open(picture).convert("RGB"), dtype=np.float64) / 127.5 - 1
    return np.c_[x, np.ones(len(x))], rgb.reshape(2 * side, 8, 2 * side, 8, 3).mean((1, 3)).reshape(-1, 3)


def main(paths, first):
    pictures = Path(paths).read_text().split()
    numbered = [Path(first)] + [Path(first).with_stem(f"{Path(first).stem}_{i}") for i in range(2, len(pictures) + 1)]
    pairs = [pair(*both) for both in zip(pictures, numbered)]
    held_out = len(pairs) // 4
    stack = lambda part: (np.concatenate([x for x, _ in part]), np.concatenate([y for _, y in part]))
    x, y = stack(pairs[held_out:])
    factors = np.linalg.lstsq(x, y, rcond=None)[0]
    x, y = stack(pairs[:held_out])
    print(f"of the variance of pictures held out: {1 - ((x @ factors - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum():.2f}", file=sys.stderr)
    x, y = stack(pairs)
    *rows, bias = np.linalg.lstsq(x, y, rcond=None)[0].round(4).tolist()
    print(json.dumps({"latent_rgb_factors": rows, "latent_rgb_factors_bias": bias}))


if __name__ == "__main__":
    main(*sys.argv[1:])
