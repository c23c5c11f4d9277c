"""Measures position methods with the demo model: makes pictures with the `dype` binary, judges them, writes a table and a grid.

    python evaluate.py DIR --binary ../../target/release/dype --model demo --out results [--prompts 216] [--sizes 256 512 1024]

Pictures that exist are kept, so an interrupted run goes on where it stopped and a larger one reuses a smaller one's.
DIR is the training folder (judge.pt; `python judge.py DIR` makes it). Columns: Frechet distance of the classifier's features
between the pictures and as many scenes rendered at that size, of whole pictures and of native-resolution patches of 128 px;
share of pictures whose kind and time the classifier names as asked; share with exactly one sun, and suns a picture; and the
difference of the mean radial power spectra (root mean square over log-spaced bands, in dB).
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import judge as J
import scenes
from scenes import KINDS, TIMES, Scene

METHODS = [("base", False), ("ntk", False), ("ntk", True), ("yarn", False), ("yarn", True)]
GRID_PROMPTS = 6


def label(method, dype):
    return ("dy_" if dype else "") + method


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


def jobs(a, size):
    for method, dype in METHODS:
        if size == 256 and method != "base":
            continue                                 # at the training size every method is base
        for i, (text, _) in enumerate(prompts(a.prompts)):
            yield {"prompt": text, "seed": i, "method": method, "dype": dype, "width": size, "height": size, "output": str(a.out / "pictures" / str(size) / label(method, dype) / f"{i:04d}.png")}


def make(a, todo):
    common = [a.binary, "--model", a.model, "--steps", str(a.steps), "--guidance", str(a.guidance)]
    if a.dype_scale is not None:
        common += ["--dype-scale", str(a.dype_scale), "--dype-exponent", str(a.dype_exponent)]
    for j in todo:
        Path(j["output"]).parent.mkdir(parents=True, exist_ok=True)
    if a.batch:
        path = a.out / "todo.jsonl"
        path.write_text("".join(json.dumps(j) + "\n" for j in todo))
        subprocess.run(common + ["--prompts", str(path)], check=True)
        return
    for n, j in enumerate(todo):
        command = common + ["--prompt", j["prompt"], "--height", str(j["height"]), "--width", str(j["width"]), "--seed", str(j["seed"]), "--method", j["method"], "-o", j["output"]]
        subprocess.run(command + ([] if j["dype"] else ["--no-dype"]), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if n % 20 == 19:
            print(f"{n + 1} of {len(todo)}", file=sys.stderr, flush=True)


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
    path = a.out / f"reference-{size}-{a.prompts}.npz"
    if not path.exists():
        wanted = [Scene.of(10_000 + i, s.kind, s.time) for i, (_, s) in enumerate(prompts(a.prompts))]
        np.savez(path, **look((scenes.render(s, size, size) for s in wanted), judge, finder))
    return dict(np.load(path))


def grid(a, size):
    columns = [label(m, d) for m, d in METHODS]
    shown = [0 + 6, 1 + 6, 2 + 18, 3, 4 + 6, 5 + 12][:GRID_PROMPTS]
    rows = []
    for i in shown:
        paths = [a.out / "pictures" / str(size) / c / f"{i:04d}.png" for c in columns]
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
    a.add_argument("--prompts", type=int, default=216)
    a.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    a.add_argument("--steps", type=int, default=28)
    a.add_argument("--guidance", type=float, default=3.5)
    a.add_argument("--dype-scale", type=float)
    a.add_argument("--dype-exponent", type=float)
    a.add_argument("--batch", action="store_true", help="the binary takes --prompts FILE.jsonl")
    a.add_argument("--judge-only", action="store_true", help="judge what is there, make nothing")
    a = a.parse_args()
    torch.set_num_threads(2)
    a.out.mkdir(parents=True, exist_ok=True)
    judge, finder = J.load(a.dir)
    lines = ["| px | method | Frechet, whole | Frechet, patches | kind | time | one sun | suns | spectrum, dB |", "|---|---|---|---|---|---|---|---|---|"]
    asked = prompts(a.prompts)
    for size in a.sizes:
        if not a.judge_only:
            make(a, [j for j in jobs(a, size) if not Path(j["output"]).exists()])
        real = reference(a, size, judge, finder)
        sets = [("scenes", None)] + [(label(m, d), (m, d)) for m, d in METHODS]
        for name, method in sets:
            if method is None:
                wanted = asked
                other = look((scenes.render(Scene.of(20_000 + i, s.kind, s.time), size, size) for i, (_, s) in enumerate(asked)), judge, finder) if size <= 512 else real
            else:
                paths = [(a.out / "pictures" / str(size) / name / f"{i:04d}.png", p) for i, p in enumerate(asked)]
                there = [(p, q) for p, q in paths if p.exists()]
                if len(there) < 8:
                    continue
                wanted = [q for _, q in there]
                other = look((np.asarray(Image.open(p).convert("RGB")) for p, _ in there), judge, finder)
            kind = np.mean([KINDS[k] == s.kind for k, (_, s) in zip(other["kinds"], wanted)])
            time = np.mean([TIMES[t] == s.time for t, (_, s) in zip(other["times"], wanted)])
            power = 10 * np.sqrt(np.mean((other["spectrum"] - real["spectrum"]) ** 2))
            lines.append(f"| {size} | {name} | {frechet(other['whole'], real['whole']):.2f} | {frechet(other['patches'], real['patches']):.2f} | {kind:.0%} | {time:.0%} | {(other['suns'] == 1).mean():.0%} | {other['suns'].mean():.2f} | {power:.1f} |")
            print(lines[-1], flush=True)
        grid(a, size)
    (a.out / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
