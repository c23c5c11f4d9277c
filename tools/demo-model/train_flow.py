"""Trains text encoders and transformer together by rectified flow on cached latents, then distils guidance into it.

    python train_flow.py DIR --seconds 7000 [--quarter 1300 --half 4000] [--compile] [--device cpu]
    python train_flow.py DIR --distil --seconds 700

Three phases, each on four times the tokens of the one before and each on the positions of the full 32 x 32 grid: until
`--quarter` seconds pictures of a quarter of the size (the half ones' latents averaged 2 x 2) whose tokens sit on every fourth
position, until `--half` seconds pictures of half the size on every second, then full ones. The cheap phases settle the layout.
Time is logit-normal (later for full pictures, whose neighbours say more of one another), a tenth of the captions is left empty, Muon trains the matrices of the blocks and AdamW the rest; the guidance input is 1 (no guidance).
Distillation: the student with guidance g in [1, 8] learns v(empty) + g (v(caption) - v(empty)) of the averaged teacher
(Meng et al. 2023, "On distillation of guided diffusion models"). Resumes from DIR/flow.pt and DIR/guided.pt.
"""
import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import scenes
from data import FIRST_SEED
from model import BASE_PX, Average, Muon, image_ids, pack, transformer
from text import Text

DROP = .10
PHASES = {"quarter": (256, 8, 4.0, .4), "half": (256, 16, 2.0, .4), "full": (BASE_PX, 32, 1.0, .9)}     # scenes, tokens a side, stride, mean logit of time
MUON_RATE, ADAM_RATE = 2.5e-3, 1.2e-3


def initialise(m):
    """FLUX's manner: Xavier matrices, small time embedding, modulation and last projection at zero."""
    for n, p in m.named_parameters():
        if p.ndim == 2:
            nn.init.normal_(p, std=.02) if "time_text_embed" in n else nn.init.xavier_uniform_(p)
        elif n.endswith("bias"):
            nn.init.zeros_(p)
    for n, sub in m.named_modules():
        if isinstance(sub, nn.Linear) and (n.endswith("norm.linear") or n.endswith("norm1.linear") or n.endswith("norm1_context.linear") or n == "norm_out.linear" or n == "proj_out"):
            nn.init.zeros_(sub.weight)


def rope(m, rows, cols, tokens, stride=1.0, device="cpu"):
    ids = torch.cat([torch.zeros(tokens, 3), image_ids(rows, cols, stride)]).to(device)
    return tuple(x.float() for x in m.pos_embed(ids))


def velocity(m, x, t, guidance, pooled, prompt_embeds, rotary):
    """FluxTransformer2DModel.forward with the time embedding kept out of bf16."""
    with torch.autocast(x.device.type, enabled=False):
        temb = m.time_text_embed(t * 1000, guidance * 1000, pooled.float())
    txt, img = m.context_embedder(prompt_embeds), m.x_embedder(x)
    for block in m.transformer_blocks:
        txt, img = block(hidden_states=img, encoder_hidden_states=txt, temb=temb, image_rotary_emb=rotary)
    for block in m.single_transformer_blocks:
        txt, img = block(hidden_states=img, encoder_hidden_states=txt, temb=temb, image_rotary_emb=rotary)
    return m.proj_out(m.norm_out(img, temb)).float()


def optimizers(m, text):
    blocks = [p for n, p in m.named_parameters() if "transformer_blocks" in n and p.ndim == 2 and ".linear." not in n]
    chosen = {id(p) for p in blocks}
    rest = [p for p in m.parameters() if id(p) not in chosen]
    words = [p for e in text.modules() for p in e.parameters()]
    muon = Muon(blocks, MUON_RATE, weight_decay=.01)
    adam = torch.optim.AdamW([{"params": rest, "scale": 1.0}, {"params": words, "scale": .3}], lr=ADAM_RATE, betas=(.9, .98), weight_decay=.0)
    muon.param_groups[0].update(scale=1.0, top=MUON_RATE)
    for g in adam.param_groups:
        g["top"] = ADAM_RATE
    return [muon, adam]


class Batches:
    """Latents and fresh captions of random scenes."""

    def __init__(self, folder, seed, device):
        sizes = {size: torch.load(Path(folder, f"latents-{size}.pt"), mmap=True) for size in (256, BASE_PX)}
        self.mean, self.std, self.device = sizes[256]["mean"], sizes[256]["std"], device
        self.latents = {size: d["latents"] for size, d in sizes.items()}
        self.r = np.random.default_rng(seed)
        self.known = {}

    def __call__(self, n, phase):
        latents = self.latents[PHASES[phase][0]]
        index = self.r.integers(0, len(latents), n)
        z = (latents[torch.from_numpy(index)].to(self.device).float() - self.mean) / self.std
        texts = []
        for i in index:
            scene = self.known.setdefault(i, None) or scenes.Scene.of(FIRST_SEED + int(i))
            self.known[i] = scene
            texts.append(scenes.caption(scene, self.r)[0])
        return pack(F.avg_pool2d(z, 2) if phase == "quarter" else z), texts

    def times(self, n, phase):
        return torch.from_numpy(1 / (1 + np.exp(-self.r.normal(PHASES[phase][3], 1.1, n)))).float().to(self.device)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--seconds", type=float, default=7000)
    a.add_argument("--quarter", type=float, default=1300, help="seconds at which the quarter phase ends")
    a.add_argument("--half", type=float, default=4000, help="seconds at which the half phase ends")
    a.add_argument("--batch", type=int, default=12, help="full pictures; the half phase takes 32 / 12 as many, the quarter phase twice as many again")
    a.add_argument("--decay", type=float, default=.995)
    a.add_argument("--device", default="cpu")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--distil", action="store_true")
    a.add_argument("--compile", action="store_true")
    a = a.parse_args()
    folder, device = Path(a.dir), a.device
    torch.manual_seed(a.seed)
    m, text = transformer().to(device), Text(folder, device)
    initialise(m)
    words = torch.load(folder / "text.pt", map_location=device)
    text.clip.load_state_dict(words["clip"])
    text.t5.load_state_dict(words["t5"])
    everything = [m, *text.modules()]
    average, opts = Average(everything, a.decay), optimizers(m, text)
    path, step, spent, teacher = folder / ("guided.pt" if a.distil else "flow.pt"), 0, 0.0, None

    def load(p, with_optimizer=True):
        s = torch.load(p, map_location=device)
        for module, state in zip(everything, s["modules"]):
            module.load_state_dict(state)
        average.load(s["average"])
        if with_optimizer:
            for o, state in zip(opts, s["optimizers"]):
                o.load_state_dict(state)
        return s["step"], s["spent"]

    if a.distil:
        load(folder / "flow.pt", False)
        average.swap()
        teacher = copy.deepcopy(m).requires_grad_(False)
        for e in text.modules():
            e.requires_grad_(False)
        average = Average(everything, a.decay)
    if path.exists():
        step, spent = load(path)
    if a.compile:
        for model in [m] + ([teacher] if teacher else []):
            for blocks in (model.transformer_blocks, model.single_transformer_blocks):
                for b in blocks:
                    b.compile(dynamic=False)

    def save():
        torch.save({"modules": [x.state_dict() for x in everything], "average": average.state(), "optimizers": [o.state_dict() for o in opts], "step": step, "spent": spent}, str(path) + ".part")
        Path(str(path) + ".part").rename(path)

    data = Batches(folder, [a.seed, step, int(a.distil)], device)
    tables = {name: rope(m, side, side, 24, stride, device) for name, (_, side, stride, _) in PHASES.items()}
    sizes = {"quarter": a.batch * 64 // 12, "half": a.batch * 32 // 12, "full": a.batch}
    start, base, last, total, seen = time.time(), spent, time.time(), 0.0, 0
    while spent < a.seconds:
        part = spent / a.seconds
        phase = "full" if a.distil or spent >= a.half else "quarter" if spent < a.quarter else "half"
        n = sizes[phase]
        rate = min(1, (step + 1) / 60) * min(1, (1.02 - part) / (.3 if not a.distil else 1))     # constant, then straight down
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["top"] * g["scale"] * rate * (.4 if a.distil else 1)
        x, texts = data(n, phase)
        noise, t = torch.randn_like(x), data.times(n, phase)
        xt, target = torch.lerp(x, noise, t[:, None, None]), noise - x
        drop = torch.from_numpy(data.r.random(n) < DROP)
        if not a.distil:
            texts = ["" if d else s for s, d in zip(texts, drop)]
        guidance = torch.ones(n, device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            if a.distil:
                guidance = torch.from_numpy(1 + 7 * data.r.random(n) ** 1.5).float().to(device)
                with torch.no_grad():
                    pooled, embeds = text(texts + [""])
                    none = pooled[-1:].expand(n, -1), embeds[-1:].expand(n, -1, -1)
                    pooled, embeds = pooled[:-1], embeds[:-1]
                    one = torch.ones_like(guidance)
                    yes, no = velocity(teacher, xt, t, one, pooled, embeds, tables[phase]), velocity(teacher, xt, t, one, *none, tables[phase])
                    target = no + guidance[:, None, None] * (yes - no)
            else:
                pooled, embeds = text(texts)
            loss = F.mse_loss(velocity(m, xt, t, guidance, pooled, embeds, tables[phase]), target)
        for o in opts:
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for e in everything for p in e.parameters()], 1.0)
        for o in opts:
            o.step()
        average.update()
        step, seen, total = step + 1, seen + n, total + loss.item()
        spent = base + time.time() - start
        if step % 50 == 0:
            print(f"step {step} {spent:.0f} s {phase} loss {total / 50:.4f} rate {rate:.2f} {seen / (time.time() - start):.1f} pictures/s", flush=True)
            total = 0.0
        if time.time() - last > 60:
            save()
            last = time.time()
    save()


if __name__ == "__main__":
    main()
