"""Loads an exported folder with diffusers' FluxPipeline and makes the picture that tests/output/demo.rs asks for.

    python check.py EXPORT ../../tests/fixtures/expected/demo.png
"""
import sys

import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
prompt = sys.argv[3] if len(sys.argv) > 3 else "a calm lake below snowy mountains at sunset"
pipe(prompt, height=512, width=512, num_inference_steps=8, guidance_scale=3.5, max_sequence_length=24, generator=torch.Generator().manual_seed(0)).images[0].save(sys.argv[2])
