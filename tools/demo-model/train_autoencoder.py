"""Trains the autoencoder on crops of the scenes; resumes from DIR/autoencoder.pt.

Loss: L1 + L1 of differences to the neighbours at three scales (edges) + a small KL, and the same at half size through
averaged latents, so that the latents are a picture at any scale (Skorokhodov et al. 2025, "Improving the diffusability
of autoencoders"), which is what makes them easy to learn for a small flow model.

    python train_autoencoder.py DIR --seconds 840 [--device cpu]
"""
import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data import shards
from model import Average, Muon, autoencoder

KL_WEIGHT = 1e-3
MUON_RATE, ADAM_RATE = 4e-3, 2e-3
CROP = 128


def crops(parts, r, n):
    out = []
    for _ in range(n):
        part = parts[r.integers(len(parts))]
        y, x = r.integers(0, part.shape[1] - CROP + 1, 2)
        c = np.asarray(part[r.integers(len(part)), y:y + CROP, x:x + CROP])
        out.append(c[:, ::-1] if r.random() < .5 else c)
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 127.5 - 1


def picture_loss(y, x):
    loss = (y - x).abs().mean()
    for level in range(3):
        dy = lambda a: a[:, :, 1:] - a[:, :, :-1]
        dx = lambda a: a[..., 1:] - a[..., :-1]
        loss = loss + .5 * ((dy(y) - dy(x)).abs().mean() + (dx(y) - dx(x)).abs().mean())
        if level < 2:
            y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
    return loss


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--seconds", type=float, default=900)
    a.add_argument("--batch", type=int, default=8)
    a.add_argument("--rate", type=float, default=1.0, help="scale of the learning rates")
    a.add_argument("--device", default="cpu")
    a.add_argument("--compile", action="store_true")
    a.add_argument("--seed", type=int, default=0)
    a = a.parse_args()
    folder = Path(a.dir)
    torch.manual_seed(a.seed)
    model = autoencoder().to(a.device, memory_format=torch.channels_last)
    average = Average([model], .99 if a.device == "cpu" else .999)
    path, step, spent = folder / "autoencoder.pt", 0, 0.0
    trained = list(model.parameters())
    muon = Muon([p for p in trained if p.ndim > 1], MUON_RATE)
    adam = torch.optim.AdamW([p for p in trained if p.ndim == 1], lr=ADAM_RATE, betas=(.9, .99), weight_decay=0)
    opts = [(muon, MUON_RATE), (adam, ADAM_RATE)]
    if path.exists():
        saved = torch.load(path, map_location=a.device)
        model.load_state_dict(saved["model"])
        average.load(saved["average"])
        for (o, _), state in zip(opts, saved["optimizers"]):
            o.load_state_dict(state)
        step, spent = saved["step"], saved["spent"]
    r = np.random.default_rng([a.seed, step])

    def save():
        torch.save({"model": model.state_dict(), "average": average.state(), "optimizers": [o.state_dict() for o, _ in opts], "step": step, "spent": spent}, str(path) + ".part")
        Path(str(path) + ".part").rename(path)

    def full(x, noise):
        d = model.encode(x).latent_dist
        z = d.mode()
        y = model.decode(z + d.std * noise).sample
        kl = .5 * (d.mean ** 2 + d.var - 1 - d.logvar)
        return y, z, kl.mean()

    def half(z):
        return model.decode(F.avg_pool2d(z, 2)).sample

    if a.compile:
        full, half = torch.compile(full, dynamic=False), torch.compile(half, dynamic=False)
    start, last, total, base = time.time(), time.time(), [0.0, 0.0, 0.0, 0.0], spent
    first = step
    while spent < a.seconds or step == first:
        rate = a.rate * min(1, (step + 1) / 40) * (.03 + .97 * .5 * (1 + math.cos(math.pi * min(1, spent / a.seconds))))
        for o, top in opts:
            o.param_groups[0]["lr"] = top * rate
        parts = shards(folder) if step % 200 == 0 or step == first else parts
        x = crops(parts, r, a.batch).to(a.device, memory_format=torch.channels_last)
        with torch.autocast(a.device, dtype=torch.bfloat16):
            y, z, kl = full(x, torch.randn(a.batch, 16, CROP // 8, CROP // 8, device=a.device))
            small = half(z) if step % 2 else None
        loss = picture_loss(y.float(), x)
        total[0] += F.mse_loss(y.detach().float(), x).item()
        total[1] += kl.item()
        total[3] += 1
        if small is not None:
            extra = picture_loss(small.float(), F.avg_pool2d(x, 2))
            total[2] += 2 * extra.item()
            loss = loss + .5 * extra
        loss = loss + KL_WEIGHT * kl
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for o, _ in opts:
            o.step()
        average.update()
        step += 1
        spent = base + time.time() - start
        if step % 50 == 0:
            mse, kl, extra, n = total
            print(f"step {step} {spent:.0f} s psnr {10 * math.log10(4 * n / mse):.2f} dB kl {kl / n:.3f} half {extra / n:.4f} rate {rate:.2f}", flush=True)
            total = [0.0] * 4
        if time.time() - last > 60:
            save()
            last = time.time()
    save()


if __name__ == "__main__":
    main()
