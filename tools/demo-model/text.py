"""The two tokenizers, made from the captions' words, and a first training of the two text encoders.

CLIP's is a byte-level BPE (vocab.json, merges.txt), T5's a unigram tokenizer.json; both know every word of the captions
as one token and spell the rest. The encoders first learn to say what a caption says (kind, time, clouds, side of the sun),
which takes a minute and spares the flow model the search for words.

    python text.py DIR [--steps 400]
"""
import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import scenes
from model import TEXT_TOKENS, clip, t5

CLASSES = {"kind": 6, "time": 4, "clouds": 3, "side": 3}


def vocabulary():
    """Every word a caption may hold, lower case, sorted."""
    texts = [t for d in (scenes.KIND_WORDS, scenes.TIME_WORDS) for v in d.values() for t in v]
    texts += [t for v in scenes.CLOUD_WORDS.values() for t in v] + scenes.OPENINGS + scenes.FILLERS
    texts += ["the one a sun moon on in with and or of to above below over behind near under left right middle snow water light"]
    return sorted({w for t in texts for w in t.lower().replace(",", " ").split()})


def bytes_to_unicode():
    """GPT-2's printable stand-ins for the 256 bytes, in CLIP's order."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    out, extra = list(keep), 0
    codes = list(keep)
    for b in range(256):
        if b not in keep:
            out.append(b)
            codes.append(256 + extra)
            extra += 1
    return [chr(c) for c in codes]


def clip_tokenizer(folder):
    words = {w: [*w[:-1], w[-1] + "</w>"] for w in vocabulary()}
    merges = []
    while any(len(p) > 1 for p in words.values()):
        pairs = Counter((a, b) for p in words.values() for a, b in zip(p, p[1:]))
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        for w, p in words.items():
            out, i = [], 0
            while i < len(p):
                if tuple(p[i:i + 2]) == best:
                    out.append(p[i] + p[i + 1])
                    i += 2
                else:
                    out.append(p[i])
                    i += 1
            words[w] = out
    letters = bytes_to_unicode()
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {t: i for i, t in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "add_prefix_space": False, "errors": "replace", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, indent=1))


def t5_tokenizer(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    pieces = ["▁" + w for w in vocabulary()] + ["▁" + w[0].upper() + w[1:] for w in vocabulary()] + [","]
    letters = [chr(c) for c in range(33, 127) if chr(c) != ","] + ["▁"]
    seen = dict.fromkeys(pieces)
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(p, -4.0) for p in seen] + [(c, -9.0) for c in letters if c not in seen]
    tok = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=False))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")])
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tok.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5TokenizerFast", "model_max_length": TEXT_TOKENS, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 0, "additional_special_tokens": []}, indent=1))


class Text:
    """Both tokenizers and both encoders, as FluxPipeline uses them (no attention mask; padding to TEXT_TOKENS)."""

    def __init__(self, folder, device="cpu"):
        from tokenizers import Tokenizer
        from transformers import CLIPTokenizer
        folder = Path(folder)
        if not (folder / "tokenizer_2" / "tokenizer.json").exists():
            clip_tokenizer(folder / "tokenizer")
            t5_tokenizer(folder / "tokenizer_2")
        self.words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.pieces = Tokenizer.from_file(str(folder / "tokenizer_2" / "tokenizer.json"))
        self.pieces.enable_truncation(TEXT_TOKENS)
        self.pieces.enable_padding(length=TEXT_TOKENS, pad_id=0, pad_token="<pad>")
        size = len(json.loads((folder / "tokenizer" / "vocab.json").read_text()))
        self.device = device
        self.clip, self.t5 = clip(size, size - 1).to(device), t5(self.pieces.get_vocab_size()).to(device)

    def modules(self):
        return [self.clip, self.t5]

    def ids(self, texts):
        # causal attention: nothing after the end token is seen, so a shorter padding gives the same pooled vector
        a = self.words(texts, padding="longest", truncation=True, max_length=77, return_tensors="pt").input_ids
        b = torch.tensor([e.ids for e in self.pieces.encode_batch(texts)])
        return a.to(self.device), b.to(self.device)

    def __call__(self, texts):
        """(pooled [B, 96], prompt_embeds [B, TEXT_TOKENS, 96])"""
        a, b = self.ids(texts)
        return self.clip(a).pooler_output, self.t5(b).last_hidden_state


def captions(n, r):
    out = []
    for _ in range(n):
        s = scenes.Scene.of(int(r.integers(1 << 30)))
        out.append(scenes.caption(s, r))
    return out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("--steps", type=int, default=400)
    a.add_argument("--device", default="cpu")
    a = a.parse_args()
    torch.manual_seed(1)
    text = Text(a.dir, a.device)
    heads = nn.ModuleList(nn.Linear(96, n + 1) for _ in range(2) for n in CLASSES.values()).to(a.device)
    parameters = [p for m in [*text.modules(), heads] for p in m.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, betas=(.9, .98), weight_decay=.01)
    r = np.random.default_rng(7)
    for step in range(a.steps):
        for g in optimizer.param_groups:
            g["lr"] = 3e-3 * min(1, (step + 1) / 30) * (1.02 - step / a.steps)
        pairs = captions(192, r)
        pooled, tokens = text([t for t, _ in pairs])
        loss, right = 0, []
        for i, (k, feature) in enumerate((k, f) for f in (pooled, tokens.mean(1)) for k in CLASSES):
            want = torch.tensor([said[k] if said[k] >= 0 else CLASSES[k] for _, said in pairs], device=a.device)
            out = heads[i](feature)
            loss = loss + F.cross_entropy(out, want)
            right.append((out.argmax(1) == want).float().mean().item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 49:
            print(f"step {step + 1} loss {loss.item():.3f} right {' '.join(f'{x:.2f}' for x in right)}", flush=True)
    torch.save({"clip": text.clip.state_dict(), "t5": text.t5.state_dict()}, Path(a.dir, "text.pt"))
    print(sum(p.numel() for m in text.modules() for p in m.parameters()) / 1e6, "M parameters")


if __name__ == "__main__":
    main()
