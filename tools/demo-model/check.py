"""Loads an exported folder with diffusers' FluxPipeline and makes a picture. python check.py EXPORT picture.png [prompt]"""
import sys

import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
prompt = sys.argv[3] if len(sys.argv) > 3 else "a calm lake below snowy mountains at sunset"
pipe(prompt, height=256, width=256, num_inference_steps=28, guidance_scale=3.5, max_sequence_length=24, generator=torch.Generator().manual_seed(0)).images[0].save(sys.argv[2])
