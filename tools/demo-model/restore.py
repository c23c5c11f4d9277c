"""Makes a training folder of an exported model, so that its training can go on: tokenizers, autoencoder.pt, text.pt and flow.pt.

    python restore.py EXPORT DIR

What an export leaves out (optimizers, the weights' averages) begins anew; its weights are bf16.
"""
import argparse
import json
import shutil
from pathlib import Path

import torch

from model import Average, autoencoder, transformer
from text import Text


def tensors(path):
    from safetensors.torch import load_file
    return {k: v.float() for k, v in load_file(path).items()}


def into(module, found):
    """Loads tensors by name, with or without CLIP's old prefix; every one of the module's has to be there."""
    wanted = module.state_dict()
    plain = {k.removeprefix("text_model."): v for k, v in found.items()}
    module.load_state_dict({k: found[k] if k in found else plain[k.removeprefix("text_model.")] if k.removeprefix("text_model.") in plain else shared(k, plain) for k in wanted})


def shared(key, found):
    """T5 keeps one table of words under two names."""
    if key in ("encoder.embed_tokens.weight", "shared.weight"):
        return found.get("shared.weight", found.get("encoder.embed_tokens.weight"))
    raise KeyError(key)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("export", type=Path)
    a.add_argument("dir", type=Path)
    a = a.parse_args()
    a.dir.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(a.export / name, a.dir / name, dirs_exist_ok=True)
    weights = "diffusion_pytorch_model.safetensors"
    ae, config = autoencoder(), json.loads((a.export / "vae" / "config.json").read_text())
    ae.load_state_dict(tensors(a.export / "vae" / weights))
    torch.save({"model": ae.state_dict(), "average": Average([ae], 0).state(), "mean": config["shift_factor"], "std": 1 / config["scaling_factor"]}, a.dir / "autoencoder.pt")
    m, text = transformer(), Text(a.dir)
    m.load_state_dict(tensors(a.export / "transformer" / weights))
    for module, name in ((text.clip, "text_encoder"), (text.t5, "text_encoder_2")):
        into(module, tensors(a.export / name / "model.safetensors"))
    torch.save({"clip": text.clip.state_dict(), "t5": text.t5.state_dict()}, a.dir / "text.pt")
    everything = [m, *text.modules()]
    torch.save({"modules": [x.state_dict() for x in everything], "average": Average(everything, 0).state(), "optimizers": [], "step": 0, "spent": 0.0}, a.dir / "flow.pt")


if __name__ == "__main__":
    main()
