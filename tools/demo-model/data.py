"""Renders the training scenes into shards of uint8 [n, size, size, 3] under DIR/scenes/SIZE.

    python data.py DIR [--size 256] [--scenes 12000] [--workers 2]
"""
import argparse
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from scenes import Scene, render

FIRST_SEED = 100_000          # seeds below are kept for tests and evaluation
SHARD = 1000


def picture(seed, size):
    return render(Scene.of(seed), size, size)


def shards(folder, size=256):
    """Finished shards in order, as memory maps."""
    return [np.load(p, mmap_mode="r") for p in sorted(Path(folder, "scenes", str(size)).glob("[0-9]*.npy"))]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--scenes", type=int, default=12000)
    a.add_argument("--size", type=int, default=256)
    a.add_argument("--workers", type=int, default=2)
    a = a.parse_args()
    out = Path(a.dir, "scenes", str(a.size))
    out.mkdir(parents=True, exist_ok=True)
    with Pool(a.workers) as pool:
        for k in range(a.scenes // SHARD):
            path = out / f"{k:04d}.npy"
            if path.exists():
                continue
            seeds = range(FIRST_SEED + k * SHARD, FIRST_SEED + (k + 1) * SHARD)
            pictures = np.stack(pool.map(partial(picture, size=a.size), seeds, chunksize=20))
            np.save(out / "part.npy", pictures)
            (out / "part.npy").rename(path)
            print(f"{path.name}: {len(pictures)} scenes", flush=True)


if __name__ == "__main__":
    main()
