"""Goes on training a finished model: flow and guidance together, so that every checkpoint is whole.

    python refine.py DIR --means 1 --steps 150 [--compile]
    python refine.py DIR [--steps 3000] [--compile]

Of each batch one half learns the flow itself with guidance 1 (a tenth of its captions empty); the other half learns, with guidance g in
[1, 6], v(empty) + g (v(caption) - v(empty)) of the model's own running average ("On distillation of guided diffusion models", Meng et al.
2023, without a fixed teacher). What a caption says of a sun is small beside a whole sky, and is lost in the variance of the targets: a share of
the steps learns, at times at which a picture is noise, the mean of all scenes that a caption says, which is what a velocity leads to there and has none
(Rao and Blackwell). Once a sun can be seen, tokens in and around it weigh more. Half of the scenes are mirrored, their captions with them.
Needs latents-512.pt of `cache.py --size 512 --mirrored` and a flow.pt, of `train_flow.py`
or of `restore.py`; resumes from DIR/refined.pt.
"""
import argparse
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import asked
import scenes
from cache import is_mirrored
from data import FIRST_SEED, SHARD
from model import Average, pack, transformer
from text import Text
from train_flow import DROP, optimizers, rope, velocity

PHASES = {"quarter": (8, 4.0, .6), "half": (16, 2.0, .9), "full": (32, 1.0, 1.0)}      # tokens a side, stride, mean logit of time
BATCHES = {"quarter": 10, "half": 3, "full": 1}               # pictures for a full one
SUN_WEIGHT, SUN_REACH = 12.0, .035                            # of a token in the sun, and how far around its disc (in heights)
SETTLED = .7, .3                                              # no such weight above the first time, all of it below the second
MEANS = (.97, .1)                                             # above this time, in this share of steps, the mean of what a caption says is learnt
GUIDANCE = 5.0                                                # the widest step above 1
SUN_PX = 128                                                  # a scene drawn this small says where its sun is


def sun(seed):
    """(u, v, radius) of a scene's sun, in shares of the picture."""
    s = scenes.Scene.of(seed)
    u, v = scenes.render_with_sun(s, SUN_PX, SUN_PX)[1]
    return u, v, s.sun_radius


def suns(folder, n):
    path = Path(folder, f"suns-{n}.npy")
    if not path.exists():
        with Pool(2) as pool:
            np.save(path, np.array(pool.map(sun, range(FIRST_SEED, FIRST_SEED + n), chunksize=50), np.float32))
    return np.load(path)


class Batches:
    """Latents, captions and weights of tokens, of random scenes in either hand."""

    def __init__(self, folder, seed):
        d = torch.load(Path(folder, "latents-512.pt"), mmap=True)
        self.latents, self.mean, self.std = d["latents"], d["mean"], d["std"]
        self.suns, self.r = suns(folder, len(self.latents)), np.random.default_rng(seed)
        self.classes, self.mean_of = [], {}
        self.flipped = np.array([d["mirrored"] and is_mirrored(i // SHARD) for i in range(len(self.latents))])
        self.across = np.where(self.flipped, 1 - self.suns[:, 0], self.suns[:, 0])      # where a sun is between the left border and the right one

    def caption(self, i, flipped, tries=2):
        """One that says where the sun is in two of three cases, and the more often the more tries it has."""
        scene = scenes.Scene.of(FIRST_SEED + int(i))
        for _ in range(1 + tries * (self.r.random() < .7)):
            text, said = scenes.caption(scene, self.r, flipped)
            if said["side"] >= 0:
                break
        return text

    def weights(self, index, side, t):
        """Of tokens; what lies in a sun weighs more where its place can be seen. Earlier that would teach suns in every place."""
        _, v, radius = self.suns[index].T[:, :, None, None]
        u = self.across[index][:, None, None]
        at = (np.arange(side) + .5) / side
        d = np.hypot(at[None, None, :] - u, at[None, :, None] - v)
        near = np.clip((radius + SUN_REACH + .5 / side - d) * side + .5, 0, 1)
        near *= np.clip((SETTLED[0] - t.numpy()) / (SETTLED[0] - SETTLED[1]), 0, 1)[:, None, None]
        return torch.from_numpy((1 + SUN_WEIGHT * near).reshape(len(index), -1).astype(np.float32))

    def at(self, index, stride):
        z = (self.latents[torch.from_numpy(index)].float() - self.mean) / self.std
        return F.avg_pool2d(z, int(stride)) if stride > 1 else z

    def class_of(self, i):
        """What a caption may say of a scene but for its clouds: kind, time and side."""
        s = scenes.Scene.of(FIRST_SEED + i)
        return s.kind, s.time, asked.side(self.across[i])

    def means(self, n, phase):
        """Pictures at times at which they are noise, captions that say kind, time and side, and the mean of all scenes they say: what a
        velocity leads to there. As a target it has no variance, in which the little that a side changes would be lost."""
        if not self.classes:
            self.classes = [self.class_of(i) for i in range(len(self.latents))]
            for c in set(self.classes):
                self.mean_of[c] = self.at(np.array([i for i, own in enumerate(self.classes) if own == c]), 1).mean(0)
        _, stride, _ = PHASES[phase]
        index = self.r.integers(0, len(self.latents), n)
        mean = torch.stack([self.mean_of[self.classes[i]] for i in index])
        mean = F.avg_pool2d(mean, int(stride)) if stride > 1 else mean
        t = MEANS[0] + (1 - MEANS[0]) * torch.from_numpy(self.r.random(n)).float()
        return pack(self.at(index, stride)), pack(mean), [self.full_caption(i) for i in index], t

    def full_caption(self, i):
        scene = scenes.Scene.of(FIRST_SEED + int(i))
        while True:
            text, said = scenes.caption(scene, self.r, self.flipped[i])
            if min(said["kind"], said["time"], said["side"]) >= 0 > said["clouds"]:
                return text

    def __call__(self, n, phase):
        side, stride, logit = PHASES[phase]
        index = self.r.integers(0, len(self.latents), n)
        flipped = self.flipped[index]
        z = self.at(index, stride)
        t = torch.from_numpy(1 / (1 + np.exp(-self.r.normal(logit, 1.2, n)))).float()
        return pack(z), [self.caption(i, f, 4 if phase == "quarter" else 2) for i, f in zip(index, flipped)], self.weights(index, side, t), t


def weighted(v, target, w):
    return ((v - target) ** 2).mean(2).mul(w).sum() / w.sum()


class Refiner:
    """The model with its running average, which teaches it guidance, and what a checkpoint holds."""

    def __init__(self, folder, decay):
        self.path, self.text = Path(folder, "refined.pt"), Text(folder)
        self.m, self.teacher = transformer(), transformer().requires_grad_(False)
        self.everything = [self.m, *self.text.modules()]
        saved = torch.load(self.path if self.path.exists() else Path(folder, "flow.pt"))
        for module, state in zip(self.everything, saved["modules"]):
            module.load_state_dict(state)
        self.average, self.opts = Average(self.everything, decay), optimizers(self.m, self.text)
        self.average.load(saved["average"])
        self.step = saved["step"] if self.path.exists() else 0
        if self.path.exists():
            for o, state in zip(self.opts, saved["optimizers"]):
                o.load_state_dict(state)
        else:
            self.average.steps = int(1 / (1 - decay))           # as sure of itself as it will be later
        self.taught = list(self.teacher.parameters())

    def compile(self):
        torch._dynamo.config.recompile_limit = 32
        for model in (self.m, self.teacher):
            for blocks in (model.transformer_blocks, model.single_transformer_blocks):
                for b in blocks:
                    b.compile(dynamic=False)

    def save(self):
        part = Path(str(self.path) + ".part")
        state = {"modules": [x.state_dict() for x in self.everything], "average": self.average.state(), "optimizers": [o.state_dict() for o in self.opts], "step": self.step}
        torch.save(state, part)
        part.rename(self.path)

    @torch.no_grad()
    def guided(self, xt, t, guidance, pooled, embeds, table):
        """Velocities with guidance, by the average; the last caption is the empty one."""
        n = len(xt)
        torch._foreach_copy_(self.taught, self.average.mean[:len(self.taught)])
        both = [torch.cat([c[:-1], c[-1:].expand_as(c[:-1])]) for c in (pooled, embeds)]
        yes, no = velocity(self.teacher, torch.cat([xt, xt]), torch.cat([t, t]), torch.ones(2 * n), *both, table).chunk(2)
        return no + guidance[:, None, None] * (yes - no)

    def losses(self, x, texts, w, t, table, r):
        """(of the flow, of guidance): the first half of a batch learns the one, the second the other."""
        n, k = len(x), len(x) // 2
        noise = torch.randn_like(x)
        xt, target, guidance = torch.lerp(x, noise, t[:, None, None]), noise - x, torch.ones(n)
        texts = ["" if i < k and r.random() < DROP else s for i, s in enumerate(texts)]
        guidance[k:] = torch.from_numpy(1 + GUIDANCE * r.random(n - k)).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pooled, embeds = self.text([*texts, ""])
            target[k:] = self.guided(xt[k:], t[k:], guidance[k:], pooled[k:], embeds[k:], table)
            v = velocity(self.m, xt, t, guidance, pooled[:-1], embeds[:-1], table)
        return weighted(v[:k], target[:k], w[:k]), weighted(v[k:], target[k:], w[k:])

    def loss_of_means(self, x, mean, texts, t, table):
        noise = torch.randn_like(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pooled, embeds = self.text(texts)
            v = velocity(self.m, torch.lerp(x, noise, t[:, None, None]), t, torch.ones(len(x)), pooled, embeds, table)
        return ((v - (noise - mean)) ** 2).mean()

    def learn(self, loss, rate):
        for o in self.opts:
            for g in o.param_groups:
                g["lr"] = g["top"] * g["scale"] * rate
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for e in self.everything for p in e.parameters()], 1.0)
        for o in self.opts:
            o.step()
        self.average.update()
        self.step += 1


class Course:
    """Steps of three kinds: flow and guidance at a size, or the means of captions."""

    def __init__(self, a, model):
        self.a, self.model, self.data = a, model, Batches(a.dir, [1, model.step])
        self.tables = {name: rope(model.m, side, side, 24, stride) for name, (side, stride, _) in PHASES.items()}
        self.seen = {}

    def rate(self):
        return self.a.rate * min(1, (self.model.step + 1) / 40) * min(1, (1 + 1 / self.a.steps - self.model.step / self.a.steps) / .6)

    def loss(self):
        r, batch = self.data.r, self.a.batch
        if r.random() < self.a.means:
            phase = r.choice(list(PHASES))
            loss = self.model.loss_of_means(*self.data.means(batch * BATCHES[phase], phase), self.tables[phase])
            self.see(f"{phase} means", loss)
            return loss
        quarter, half = self.a.smaller if self.model.step < .75 * self.a.steps else [0, 0]
        phase = r.choice(list(PHASES), p=[quarter, half, 1 - quarter - half])
        flow, guided = self.model.losses(*self.data(batch * BATCHES[phase], phase), self.tables[phase], r)
        self.see(f"{phase} flow", flow)
        self.see(f"{phase} guided", guided)
        return flow + guided

    def see(self, name, loss):
        self.seen.setdefault(name, []).append(loss.item())

    def told(self):
        """Means of what was seen since this was asked before."""
        seen, self.seen = self.seen, {}
        return " ".join(f"{name} {np.mean(losses):.4f} ({len(losses)})" for name, losses in sorted(seen.items()))


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir", type=Path)
    a.add_argument("--steps", type=int, default=3000)
    a.add_argument("--batch", type=int, default=12, help="full pictures; three times as many half ones, ten times as many quarter ones")
    a.add_argument("--smaller", type=float, nargs=2, default=[.1, .35], help="shares of steps on quarter-size and half-size pictures until three quarters of them, none after")
    a.add_argument("--means", type=float, default=MEANS[1], help="share of steps on means of captions; 1 for the first 150")
    a.add_argument("--rate", type=float, default=.6, help="learning rate, beside train_flow.py's; straight down from two fifths of the steps on")
    a.add_argument("--decay", type=float, default=.995)
    a.add_argument("--pause", type=Path, help="waits while this file is there")
    a.add_argument("--compile", action="store_true")
    return a.parse_args()


def main():
    a = arguments()
    torch.set_num_threads(2)
    model = Refiner(a.dir, a.decay)
    torch.manual_seed(model.step)
    if a.compile:
        model.compile()
    course = Course(a, model)
    begun = last = time.time()
    while model.step < a.steps:
        while a.pause and a.pause.exists():
            time.sleep(5)
        rate = course.rate()
        model.learn(course.loss(), rate)
        if model.step % 25 == 0:
            print(f"step {model.step} {time.time() - begun:.0f} s rate {rate:.2f} {course.told()}", flush=True)
        if time.time() - last > 60:
            model.save()
            last = time.time()
    model.save()


if __name__ == "__main__":
    main()
