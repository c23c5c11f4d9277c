"""Measures position methods with the demo model: makes pictures with the `dype` binary, judges them, writes tables and a grid.

    python evaluate.py DIR --binary ../../target/release/dype --model demo --out results [--sizes 512 1024 2048] [--prompts 216 48 4]
    python evaluate.py DIR ... --sizes 1024 --variants yarn dy_yarn dy_yarn:1:1 dy_yarn:1:2:power      (a sweep of lambda_s, lambda_t, thresholds)
    python evaluate.py DIR ... --sizes 1024 --variants base dy_yarn sega dy_yarn+anchor ladder:dy_yarn --half held-out --paired dy_yarn

Pictures are made prompt by prompt and those that exist are kept, so an interrupted run leaves whole prompts, goes on where it stopped,
and a larger one reuses a smaller one's. A table has the prompts that every variant has a picture of.
DIR is the training folder (judge.pt and finder.pt; `evaluate` makes them). Columns: Frechet distance of the classifier's features
between the pictures and scenes rendered at that size, of whole pictures and of native-resolution patches of 128 px (none for fewer than
12 pictures); share of pictures whose kind and time the classifier names as asked; share with exactly one sun, with exactly one sun on the
side that is asked for, and with exactly one horizon; suns and horizons a picture; the difference of the mean radial power spectra (root
mean square over log-spaced bands, in dB); medians of seconds and of processor seconds a picture, without loading the model.
With --paired the same prompts and seeds are also compared one by one: mean differences with 95% intervals of a bootstrap over the prompts.
"""
import argparse
import json
import resource
import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import scenes
from asked import HALVES, folder, half_of, numbers, prompt, settings, side
from finder import load as load_finder, shrink, to_tensor
from judge import PATCH_PX, load as load_judge
from model import BASE_PX
from scenes import KINDS, TIMES, Scene

VARIANTS = ["base", "yarn", "dy_yarn", "sega", "dy_yarn+anchor", "ladder:yarn", "ladder:dy_yarn", "ladder:sega"]
FEWEST_FOR_A_DISTANCE = 12
COLUMNS = ["px", "pictures", "method", "Frechet, whole", "Frechet, patches", "kind", "time", "one sun", "where asked", "one horizon", "suns", "horizons", "spectrum, dB", "s", "processor s"]


def picture(a, size, variant, i):
    return a.out / "pictures" / str(size) / folder(variant) / f"{i:04d}.png"


def make(a, size, variant, i):
    """A picture, where it is not there, and beside it what the binary says of it and the processor's time."""
    path = picture(a, size, variant, i).resolve()
    if path.exists():
        return
    text, _ = prompt(i)
    job = {"prompt": text, "seed": i, "width": size, "height": size, "output": str(path)} | settings(variant)
    command = [a.binary, "--model", a.model, "--steps", str(a.steps), "--guidance", str(a.guidance), "--prompts", "-", "--json", "--quiet", "--checkpoint-every", "0"]
    command += ["--dtype", a.dtype] if a.dtype else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(subprocess.run(command, input=json.dumps(job) + "\n", check=True, stdout=subprocess.PIPE, text=True).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said["processor_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    path.with_suffix(".json").write_text(json.dumps(said))
    print(f"{size} px, prompt {i}, {variant}: {said['seconds']['total']:.1f} s, {said['processor_seconds']:.1f} s of processors", flush=True)


def make_all(a, size, variants, asked):
    for i in asked:
        for variant in variants:
            make(a, size, variant, i)


def draw(a, size, i):
    """Another scene of a prompt's kind and time, rendered: what a perfect model would make."""
    path = picture(a, size, "scenes", i)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _, s = prompt(i)
        Image.fromarray(scenes.render(Scene.of(20_000 + i, s.kind, s.time), size, size)).save(path)


def spectrum(picture):
    """Log10 power in 24 log-spaced radial bands, in cycles a picture."""
    y = picture.astype(np.float64).mean(2) / 255
    y = (y - y.mean()) * np.hanning(y.shape[0])[:, None] * np.hanning(y.shape[1])[None]
    power = np.abs(np.fft.fftshift(np.fft.fft2(y))) ** 2 / y.size
    yy, xx = np.indices(y.shape)
    radius = np.hypot(yy - y.shape[0] // 2, xx - y.shape[1] // 2)
    edges = np.geomspace(1, min(y.shape) / 2, 25)
    return np.array([np.log10(power[(radius >= lo) & (radius < hi + .5)].mean() + 1e-12) for lo, hi in zip(edges, edges[1:])])


@torch.no_grad()
def look(picture, judge, finder, seed=0):
    """Everything measured of a picture."""
    x = to_tensor([picture])
    kind, time, features = judge(shrink(x, PATCH_PX))
    places = np.random.default_rng(seed).integers(0, np.array(picture.shape[:2]) - PATCH_PX + 1, (8, 2))
    patches = judge(torch.cat([x[..., a:a + PATCH_PX, b:b + PATCH_PX] for a, b in places]))[2]
    suns, horizons = finder.find(x)[0]
    return {"kind": kind[0].softmax(0).numpy(), "time": int(time.argmax()), "whole": features[0].numpy(), "patches": patches.numpy(), "suns": suns, "horizons": horizons, "spectrum": spectrum(picture)}


def look_at_all(a, size, variants, chosen, judge, finder):
    """What is measured of each variant's pictures, by (variant, prompt)."""
    seen = {}
    for variant in variants:
        for i in chosen:
            path = picture(a, size, variant, i)
            seen[variant, i] = look(np.asarray(Image.open(path).convert("RGB")), judge, finder, i)
            times = path.with_suffix(".json")
            said = json.loads(times.read_text()) if times.exists() else None
            seen[variant, i] |= {"s": said["seconds"]["total"] - said["seconds"]["load"], "processor s": said["processor_seconds"]} if said else {}
    return seen


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
    """Features and spectrum of rendered scenes (kept in the output folder), other seeds than the prompts'."""
    path = a.out / f"reference-{size}-{a.references}.npz"
    if not path.exists():
        kinds = [(KINDS[i % 6], TIMES[i // 6 % 4]) for i in range(a.references)]
        seen = [look(scenes.render(Scene.of(10_000 + i, *k), size, size), judge, finder, i) for i, k in enumerate(kinds)]
        np.savez(path, whole=np.stack([s["whole"] for s in seen]), patches=np.concatenate([s["patches"] for s in seen]), spectrum=np.mean([s["spectrum"] for s in seen], 0))
    return dict(np.load(path))


def marks(seen, i):
    """What is right in a picture of prompt i, each 0 or 1, and how sure the classifier is of its kind."""
    _, s = prompt(i)
    suns = seen["suns"]
    slack = .05          # a sun this far beyond the border of its side is still on it
    is_there = len(suns) == 1 and side(s.sun_u) in {side(suns[0][0] + d) for d in (-slack, 0, slack)}
    return {
        "kind": KINDS[seen["kind"].argmax()] == s.kind, "time": TIMES[seen["time"]] == s.time, "one sun": len(suns) == 1, "where asked": is_there,
        "one horizon": seen["horizons"] == 1, "chance of the kind": float(seen["kind"][KINDS.index(s.kind)]),
    }


def row(size, variant, chosen, seen, real):
    """A line of the table."""
    of = [seen[variant, i] for i in chosen]
    distances = ["-", "-"]
    if len(of) >= FEWEST_FOR_A_DISTANCE:
        distances = [f"{frechet(np.stack([s['whole'] for s in of]), real['whole']):.2f}", f"{frechet(np.concatenate([s['patches'] for s in of]), real['patches']):.2f}"]
    right = [marks(s, i) for s, i in zip(of, chosen)]
    shares = [f"{np.mean([m[k] for m in right]):.0%}" for k in ("kind", "time", "one sun", "where asked", "one horizon")]
    means = [f"{np.mean([len(s['suns']) for s in of]):.2f}", f"{np.mean([s['horizons'] for s in of]):.2f}"]
    power = 10 * np.sqrt(np.mean((np.mean([s["spectrum"] for s in of], 0) - real["spectrum"]) ** 2))
    times = [[s[k] for s in of if k in s] for k in ("s", "processor s")]
    return [size, len(of), variant, *distances, *shares, *means, f"{power:.1f}", *(f"{np.median(t):.1f}" if t else "-" for t in times)]


def interval(differences):
    """Mean, and 2.5% and 97.5% of the means of 10,000 draws of as many with replacement."""
    d = np.asarray(differences, float)
    means = d[np.random.default_rng(0).integers(len(d), size=(10_000, len(d)))].mean(1)
    return f"{d.mean():+.2f} [{np.quantile(means, .025):+.2f}, {np.quantile(means, .975):+.2f}]"


def beside(a, size, variants, chosen, seen):
    """A table of what each variant has more of than one of them, prompt by prompt."""
    names = ["kind", "chance of the kind", "one sun", "one horizon"]
    right = {v: [marks(seen[v, i], i) for i in chosen] for v in variants}
    difference = lambda v, k: [float(m[k]) - float(o[k]) for m, o in zip(right[v], right[a.paired])]
    return table(["px", "pictures", f"beside {a.paired}", *names], [[size, len(chosen), v, *(interval(difference(v, k)) for k in names)] for v in variants if v != a.paired])


def table(columns, rows):
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [columns, *rows]).replace("\n", "\n|" + "---|" * len(columns) + "\n", 1)


def grid(a, size, variants, chosen):
    """A column a variant, a row a prompt."""
    shrunk = lambda v, i: np.asarray(Image.open(picture(a, size, v, i)).convert("RGB").resize((a.grid_px, a.grid_px), Image.LANCZOS))
    rows = [np.concatenate([shrunk(v, i) for v in variants], 1) for i in chosen[:a.grid]]
    Image.fromarray(np.concatenate(rows)).save(a.out / f"grid-{size}.jpg", quality=90)


def variants_at(a, size):
    """Up to the training size every method is base."""
    return a.variants if size > BASE_PX else ["base"]


def measure(a, size, count, judge, finder):
    """The tables of a size; nothing where no prompt has a picture of every variant."""
    variants, asked = variants_at(a, size), numbers(count, a.half)
    there = [i for i in asked if all(picture(a, size, v, i).exists() for v in variants)]
    if not there:
        return []
    for i in there:
        draw(a, size, i)
    real = reference(a, size, judge, finder)
    seen = look_at_all(a, size, ["scenes", *variants], there, judge, finder)
    grid(a, size, variants, there)
    parts = {a.half: there} | ({h: [i for i in there if half_of(i) == h] for h in HALVES} if a.half == "both" else {})
    tables = []
    for half, chosen in parts.items():
        if chosen:
            tables += [f"Prompts: {half}.", table(COLUMNS, [row(size, v, chosen, seen, real) for v in ["scenes", *variants]])]
            tables += [beside(a, size, variants, chosen, seen)] if a.paired in variants else []
    return tables


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--binary", default="dype")
    a.add_argument("--model", default="demo")
    a.add_argument("--out", type=Path, default=Path("results"))
    a.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    a.add_argument("--prompts", type=int, nargs="+", default=[216], help="for each size, or one number for all")
    a.add_argument("--half", choices=[*HALVES, "both"], default="both", help="which prompts; both is reported by halves too")
    a.add_argument("--variants", nargs="+", default=VARIANTS, help="[ladder:]METHOD or [ladder:]dy_METHOD[:lambda_s:lambda_t[:THRESHOLDS]], then [+anchor] [+KEY=VALUE]")
    a.add_argument("--paired", metavar="VARIANT", help="compare with this one of them, prompt by prompt")
    a.add_argument("--steps", type=int, default=28)
    a.add_argument("--guidance", type=float, default=3.5)
    a.add_argument("--dtype", help="what the binary computes in, where that is not its own choice")
    a.add_argument("--references", type=int, default=216, help="rendered scenes that distances are measured from, however few pictures there are")
    a.add_argument("--grid", type=int, default=6, help="rows of the grid")
    a.add_argument("--grid-px", type=int, default=320)
    a.add_argument("--table", default="results.md", help="the table's name in the output folder")
    a.add_argument("--make-only", action="store_true", help="make pictures, judge nothing")
    a.add_argument("--judge-only", action="store_true", help="judge what is there, make nothing")
    a = a.parse_args()
    torch.set_num_threads(2)
    a.out.mkdir(parents=True, exist_ok=True)
    counts = a.prompts * len(a.sizes) if len(a.prompts) == 1 else a.prompts
    if not a.judge_only:
        for size, count in zip(a.sizes, counts):
            make_all(a, size, variants_at(a, size), numbers(count, a.half))
    if a.make_only:
        return
    tables = [part for size, count in zip(a.sizes, counts) for part in measure(a, size, count, load_judge(a.dir), load_finder(a.dir))]
    (a.out / a.table).write_text("\n\n".join(tables) + "\n")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
