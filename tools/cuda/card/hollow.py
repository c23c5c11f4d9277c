#!/usr/bin/env python3
"""A model folder of FLUX.1-dev at its true size whose weights are holes: for the shape-only mode of the simulated card.

usage: hollow.py FIXTURES OUT [fp8]   FIXTURES is tests/fixtures; OUT takes 34 GB of address, and next to nothing of the disk; with fp8
                                      the transformer's matrices are fp8_e4m3fn
"""
import json
import shutil
import struct
import sys
from pathlib import Path

# The published configs, as far as they are read. Source: black-forest-labs/FLUX.1-dev.
CONFIGS = {
    "transformer": {
        "_class_name": "FluxTransformer2DModel", "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56],
        "guidance_embeds": True, "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24,
        "num_layers": 19, "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768,
    },
    "vae": {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        "force_upcast": True, "in_channels": 3, "out_channels": 3, "latent_channels": 16, "layers_per_block": 2,
        "mid_block_add_attention": True, "norm_num_groups": 32, "sample_size": 1024, "scaling_factor": 0.3611,
        "shift_factor": 0.1159, "use_post_quant_conv": False, "use_quant_conv": False,
    },
    "text_encoder": {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu",
        "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-5, "max_position_embeddings": 77,
        "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768, "vocab_size": 49408,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    },
    "text_encoder_2": {
        "architectures": ["T5EncoderModel"], "model_type": "t5", "d_ff": 10240, "d_kv": 64, "d_model": 4096,
        "dense_act_fn": "gelu_new", "feed_forward_proj": "gated-gelu", "is_gated_act": True, "layer_norm_epsilon": 1e-6,
        "num_heads": 64, "num_layers": 24, "num_decoder_layers": 24, "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32, "vocab_size": 32128, "pad_token_id": 0, "eos_token_id": 1,
    },
}
FILES = {
    "transformer": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors",
}


def write_hollow(path, shapes, fp8):
    """A safetensors file of tensors of these shapes in bf16, or matrices in fp8."""
    header, end = {}, 0
    for name, shape in shapes.items():
        dtype, size = ("F8_E4M3", 1) if fp8 and len(shape) == 2 else ("BF16", 2)
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def main(fixtures, out, fp8=None):
    shapes = json.loads((fixtures / "flux1_dev_tensors.json").read_text())
    shutil.copytree(fixtures / "tiny-flux", out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    for part, config in CONFIGS.items():
        (out / part / "config.json").write_text(json.dumps(config, indent=2))
        write_hollow(out / part / FILES[part], shapes[part], fp8 == "fp8" and part == "transformer")


main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
