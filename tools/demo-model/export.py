"""Writes the model as a FLUX repository in diffusers layout, bf16, one file a part.

    python export.py DIR OUT [--weights guided.pt] [--dype-scale X --dype-exponent Y] [--mantissa 4]
"""
import argparse
import json
import shutil
from pathlib import Path

import torch

from cache import load_autoencoder, statistics
from model import BASE_PX, Average, transformer
from text import Text


def load_flow(folder, name="guided.pt"):
    """(transformer, text) with the averaged weights of a checkpoint."""
    text, m = Text(folder), transformer()
    saved = torch.load(Path(folder, name), map_location="cpu")
    everything = [m, *text.modules()]
    for module, state in zip(everything, saved["modules"]):
        module.load_state_dict(state)
    average = Average(everything, 0)
    average.load(saved["average"])
    average.swap()
    for module in everything:
        module.eval().requires_grad_(False)
    return m, text


def rounded(module, bits):
    """In bf16, of whose mantissa matrices keep so many bits, the nearest: what is left out are zeros, which archives compress."""
    module.to(torch.bfloat16)
    dropped = 7 - bits
    for weight in module.parameters():
        if dropped and weight.ndim == 2:
            w = weight.detach().view(torch.int16).to(torch.int32) & 0xffff
            w = (w + (1 << dropped - 1) - 1 + (w >> dropped & 1)) >> dropped << dropped
            weight.data = w.to(torch.int16).view(torch.bfloat16)
    return module


def classic_names(path):
    """CLIP's keys with the prefix that every published FLUX folder has; newer versions of transformers save without it."""
    from safetensors.torch import load_file, save_file
    tensors = {k if k.startswith("text_model.") else "text_model." + k: v.clone() for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def edit(path, **values):
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps(config, indent=2) + "\n")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("out")
    a.add_argument("--weights", default="guided.pt")
    a.add_argument("--dype-scale", type=float)
    a.add_argument("--dype-exponent", type=float)
    a.add_argument("--mantissa", type=int, choices=range(2, 8), default=7, help="bits of it that matrices of the transformer and the text encoders keep; 4 make a clone 2 MB smaller")
    a = a.parse_args()
    from diffusers import FlowMatchEulerDiscreteScheduler
    folder, out = Path(a.dir), Path(a.out)
    shutil.rmtree(out, ignore_errors=True)
    m, text = load_flow(folder, a.weights)
    mean, std = statistics(folder)
    rounded(m, a.mantissa).save_pretrained(out / "transformer")
    load_autoencoder(folder).to(torch.bfloat16, memory_format=torch.contiguous_format).save_pretrained(out / "vae")
    rounded(text.clip, a.mantissa).save_pretrained(out / "text_encoder")
    classic_names(out / "text_encoder" / "model.safetensors")
    rounded(text.t5, a.mantissa).save_pretrained(out / "text_encoder_2")
    # mu is the same at every size: base and max shift agree, so diffusers' formula gives what pinning gives
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=1.15, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096).save_pretrained(out / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(folder / name, out / name)
    # What transformers takes for a model of its own when nobody says another; diffusers takes float32 for the rest. Files stay bf16.
    for encoder in ("text_encoder", "text_encoder_2"):
        edit(out / encoder / "config.json", dtype="float32")
    edit(out / "vae" / "config.json", scaling_factor=1 / std, shift_factor=mean)
    extra = {k: v for k, v in (("dype_scale", a.dype_scale), ("dype_exponent", a.dype_exponent)) if v is not None}
    edit(out / "transformer" / "config.json", base_resolution=BASE_PX, **extra)
    parts = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "T5TokenizerFast"], "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (out / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline", "_diffusers_version": "0.30.0", **parts}, indent=2) + "\n")
    files = sorted((p.stat().st_size, p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    for size, p in files:
        print(f"{size:>10} {p}")
    print(f"{sum(s for s, _ in files):>10} bytes in all")


if __name__ == "__main__":
    main()
