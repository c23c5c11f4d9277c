"""Measures position methods with the demo model: makes pictures with the `dype` binary, judges them, writes a table and a grid.

    python evaluate.py DIR --binary ../../target/release/dype --model demo --out results [--sizes 512 1024 2048] [--prompts 216 48 4]
    python evaluate.py DIR ... --sizes 1024 --variants yarn dy_yarn dy_yarn:1:1 dy_yarn:1:2:power      (a sweep of lambda_s, lambda_t, thresholds)

Pictures that exist are kept, so an interrupted run goes on where it stopped and a larger one reuses a smaller one's.
DIR is the training folder (judge.pt; `python judge.py DIR` makes it). Columns: Frechet distance of the classifier's features
between the pictures and as many scenes rendered at that size, of whole pictures and of native-resolution patches of 128 px;
share of pictures whose kind and time the classifier names as asked; share with exactly one sun, and suns a picture; and the
difference of the mean radial power spectra (root mean square over log-spaced bands, in dB).
"""
import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import judge as J
import scenes
from model import BASE_PX
from scenes import KINDS, TIMES, Scene

VARIANTS = ["base", "ntk", "yarn", "dy_ntk", "dy_yarn"]
GRID_PROMPTS = 6
REFERENCES = 216          # rendered scenes that a distance is measured from, however few pictures there are


def flags(variant):
    """The keys of a picture's method: "dy_yarn:1:0.5:power" is DY-YaRN with lambda_s = 1, lambda_t = 0.5 and thresholds raised."""
    name, *rest = variant.split(":")
    keys = {"method": name.removeprefix("dy_"), "dype": name.startswith("dy_")}
    return keys | dict(zip(("dype_scale", "dype_exponent"), map(float, rest[:2]))) | ({"dype_thresholds": rest[2]} if len(rest) > 2 else {})


def folder(variant):
    return variant.replace(":", "_")


def prompts(n):
    """n prompts over all kinds and times, each asking for one sun or moon; (text, scene) with the scene the text describes."""
    out = []
    for i in range(n):
        kind, time = KINDS[i % 6], TIMES[i // 6 % 4]
        s, r = Scene.of(i, kind, time), np.random.default_rng([i, 99])
        pick = lambda words: words[r.integers(len(words))]
        side = 0 if s.sun_u < .4 else (2 if s.sun_u > .6 else 1)
        body = "moon" if time == "night" else "sun"
        out.append((f"{pick(scenes.KIND_WORDS[kind])} {pick(scenes.TIME_WORDS[time])}, one {body} {['on the left', 'in the middle', 'on the right'][side]}", s))
    return out


def picture(a, size, variant, i):
    return a.out / "pictures" / str(size) / folder(variant) / f"{i:04d}.png"


def make(a, size, asked):
    """One batch of all pictures that are not there."""
    todo = []
    for variant in a.variants:
        if size <= BASE_PX and variant != "base":
            continue                                 # up to the training size every method is base
        for i, (text, _) in enumerate(asked):
            path = picture(a, size, variant, i).resolve()
            if not path.exists():
                todo.append({"prompt": text, "seed": i, "width": size, "height": size, "output": str(path)} | flags(variant))
    if todo:
        path = a.out / f"todo-{size}.jsonl"
        path.write_text("".join(json.dumps(j) + "\n" for j in todo))
        subprocess.run([a.binary, "--model", a.model, "--steps", str(a.steps), "--guidance", str(a.guidance), "--prompts", str(path), "--checkpoint-every", "0"], check=True, stdout=subprocess.DEVNULL)


def spectrum(picture):
    """Mean log10 power in 24 log-spaced radial bands, in cycles a picture."""
    y = picture.astype(np.float64).mean(2) / 255
    y = (y - y.mean()) * np.hanning(y.shape[0])[:, None] * np.hanning(y.shape[1])[None]
    power = np.abs(np.fft.fftshift(np.fft.fft2(y))) ** 2 / y.size
    yy, xx = np.indices(y.shape)
    radius = np.hypot(yy - y.shape[0] // 2, xx - y.shape[1] // 2)
    edges = np.geomspace(1, min(y.shape) / 2, 25)
    return np.array([np.log10(power[(radius >= lo) & (radius < hi + .5)].mean() + 1e-12) for lo, hi in zip(edges, edges[1:])])


@torch.no_grad()
def look(pictures, judge, finder, seed=0):
    """Everything measured of a set of pictures, as arrays."""
    r = np.random.default_rng(seed)
    whole, patches, kinds, times, suns, spectra = [], [], [], [], [], []
    for picture in pictures:
        x = J.to_tensor([picture])
        k, t, f = judge(J.shrink(x, J.PATCH_PX))
        whole.append(f[0].numpy())
        kinds.append(int(k.argmax()))
        times.append(int(t.argmax()))
        suns.append(int(finder.count(x)[0]))
        places = r.integers(0, np.array(picture.shape[:2]) - J.PATCH_PX + 1, (8, 2))
        patches.append(judge(torch.cat([x[..., a:a + J.PATCH_PX, b:b + J.PATCH_PX] for a, b in places]))[2].numpy())
        spectra.append(spectrum(picture))
    return {"whole": np.stack(whole), "patches": np.concatenate(patches), "kinds": np.array(kinds), "times": np.array(times), "suns": np.array(suns), "spectrum": np.mean(spectra, 0)}


def frechet(a, b):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)), of features scaled by b's standard deviations."""
    scale = b.std(0) + 1e-6
    a, b = a / scale, b / scale
    ca, cb = np.cov(a.T), np.cov(b.T)
    w, v = np.linalg.eigh(cb)
    root = (v * np.sqrt(np.clip(w, 0, None))) @ v.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ ca @ root), 0, None)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross)


def reference(a, size, judge, finder):
    """The same measures of rendered scenes (kept in the output folder), other seeds than the prompts'."""
    path = a.out / f"reference-{size}-{REFERENCES}.npz"
    if not path.exists():
        wanted = [Scene.of(10_000 + i, s.kind, s.time) for i, (_, s) in enumerate(prompts(REFERENCES))]
        np.savez(path, **look((scenes.render(s, size, size) for s in wanted), judge, finder))
    return dict(np.load(path))


def grid(a, size):
    shown = [0 + 6, 1 + 6, 2 + 18, 3, 4 + 6, 5 + 12][:GRID_PROMPTS]
    rows = []
    for i in shown:
        paths = [picture(a, size, variant, i) for variant in a.variants]
        if all(p.exists() for p in paths):
            rows.append(np.concatenate([np.asarray(Image.open(p).convert("RGB").resize((320, 320), Image.LANCZOS)) for p in paths], 1))
    if rows:
        Image.fromarray(np.concatenate(rows)).save(a.out / f"grid-{size}.jpg", quality=90)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--binary", default="dype")
    a.add_argument("--model", default="demo")
    a.add_argument("--out", type=Path, default=Path("results"))
    a.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    a.add_argument("--prompts", type=int, nargs="+", default=[216], help="for each size, or one number for all")
    a.add_argument("--variants", nargs="+", default=VARIANTS, help="METHOD or dy_METHOD[:lambda_s:lambda_t[:product|power]]")
    a.add_argument("--steps", type=int, default=28)
    a.add_argument("--guidance", type=float, default=3.5)
    a.add_argument("--table", default="results.md", help="the table's name in the output folder")
    a.add_argument("--judge-only", action="store_true", help="judge what is there, make nothing")
    a = a.parse_args()
    torch.set_num_threads(2)
    a.out.mkdir(parents=True, exist_ok=True)
    judge, finder = J.load(a.dir)
    lines = ["| px | pictures | method | Frechet, whole | Frechet, patches | kind | time | one sun | suns | spectrum, dB |", "|---|---|---|---|---|---|---|---|---|---|"]
    for size, count in zip(a.sizes, a.prompts * len(a.sizes) if len(a.prompts) == 1 else a.prompts):
        asked = prompts(count)
        if not a.judge_only:
            make(a, size, asked)
        real = reference(a, size, judge, finder)
        for name in ["scenes", *(a.variants if size > BASE_PX else ["base"])]:
            if name == "scenes":
                wanted = asked
                other = look((scenes.render(Scene.of(20_000 + i, s.kind, s.time), size, size) for i, (_, s) in enumerate(asked)), judge, finder)
            else:
                paths = [(picture(a, size, name, i), p) for i, p in enumerate(asked)]
                there = [(p, q) for p, q in paths if p.exists()]
                if len(there) < 8:
                    continue
                wanted = [q for _, q in there]
                other = look((np.asarray(Image.open(p).convert("RGB")) for p, _ in there), judge, finder)
            kind = np.mean([KINDS[k] == s.kind for k, (_, s) in zip(other["kinds"], wanted)])
            time = np.mean([TIMES[t] == s.time for t, (_, s) in zip(other["times"], wanted)])
            power = 10 * np.sqrt(np.mean((other["spectrum"] - real["spectrum"]) ** 2))
            lines.append(f"| {size} | {len(wanted)} | {name} | {frechet(other['whole'], real['whole']):.2f} | {frechet(other['patches'], real['patches']):.2f} | {kind:.0%} | {time:.0%} | {(other['suns'] == 1).mean():.0%} | {other['suns'].mean():.2f} | {power:.1f} |")
            print(lines[-1], flush=True)
        grid(a, size)
    (a.out / a.table).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
