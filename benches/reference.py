#!/usr/bin/env python3
"""The other side of docs/BENCHMARKS.md: the same work by PyTorch and diffusers, timed in a process of its own.

Needs: pip install torch diffusers transformers safetensors

  reference.py make-step DIR            a transformer of true FLUX.1 widths: 1 double and 2 single blocks, random bf16 weights
  reference.py make-transformer DIR     FLUX.1-dev's whole transformer, random bf16 weights (24 GB)
  reference.py make-vae DIR             an autoencoder of FLUX.1's size, random f32 weights
  reference.py make-full DIR            a whole FLUX.1-dev + T5-XXL, random bf16 weights (34 GB)
  reference.py make-z-image DIR         a Z-Image-Turbo of true width: 1 refiner of each kind, 2 layers, random bf16 weights
  reference.py make-klein DIR           a FLUX.2 [klein] 4B of true width: 1 double and 2 single blocks, likewise
  reference.py step DIR --px 1024,4096  one transformer step at each size
  reference.py step-openvino DIR        the same by OpenVINO, on the CPU: converted and compiled beforehand (pip install openvino)
  reference.py step-of DIR --px 1024    the same of a whole repository, whatever its family, within its pipeline
  reference.py decode DIR --px 1024     one decode
  reference.py run DIR --px 4096        a whole run of a small model, one step

Each measuring command prints one JSON line a size: {"px": N, "seconds": [...], "peak_rss_bytes": N, "peak_bytes": N}, the last
the most that its tensors took of the device (on the CPU: what the process took). `step-of --out FILE` writes the latents after its one
step, as `peer step-of --out` does.
"""
import argparse
import functools
import json
import os
import resource
import time

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
TEXT_TOKENS = 512
# Longer than any family reads, so that the text is as long as it may be.
PROMPT = "A serene mountain landscape at sunset, " * 100
# What makes a tiny repository of the fixtures one of true width with few blocks: of the transformer, of the text encoder.
WIDE = {
    "z-image": ("z-image", dict(dim=3840, n_heads=30, n_kv_heads=30, n_layers=2, n_refiner_layers=1, cap_feat_dim=2560,
                                axes_dims=[32, 48, 48]), dict(hidden_size=2560)),
    "klein": ("flux2-klein", dict(num_layers=1, num_single_layers=2, num_attention_heads=24, attention_head_dim=128,
                                  joint_attention_dim=7680, axes_dims_rope=[32] * 4), dict(hidden_size=2560)),
}
# Qwen3's for one turn without tools.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)


def true_widths(double, single):
    return dict(
        num_layers=double, num_single_layers=single, attention_head_dim=128, num_attention_heads=24, in_channels=64,
        joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
    )


def flux_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024,
    )


def make_step(folder):
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    model = FluxTransformer2DModel(**true_widths(1, 2)).to(torch.bfloat16)
    model.save_pretrained(os.path.join(folder, "transformer"))


def make_vae(folder):
    torch.manual_seed(0)
    flux_vae().save_pretrained(os.path.join(folder, "vae"))


def random_file(path, shapes, pool):
    """A bf16 safetensors file written tensor by tensor from a pool of random numbers: no model is ever in memory."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = end
        while left:
            part = min(left, len(pool))
            file.write(pool[:part])
            left -= part


def random_pool():
    torch.manual_seed(0)
    return (torch.randn(1 << 25) * 0.02).to(torch.bfloat16).view(torch.uint8).numpy().tobytes()


def make_transformer(folder, fixtures):
    part = os.path.join(folder, "transformer")
    os.makedirs(part, exist_ok=True)
    config = json.load(open(os.path.join(fixtures, "tiny-flux", "transformer", "config.json"))) | true_widths(19, 38)
    json.dump(config, open(os.path.join(part, "config.json"), "w"), indent=1)
    shapes = json.load(open(os.path.join(fixtures, "flux1_dev_tensors.json")))["transformer"]
    random_file(os.path.join(part, "diffusion_pytorch_model.safetensors"), shapes, random_pool())


def make_full(folder, fixtures):
    """FLUX.1-dev's own names and shapes; tokenizers, scheduler and the small configs come from the test fixtures."""
    import shutil

    tiny = os.path.join(fixtures, "tiny-flux")
    tensors = json.load(open(os.path.join(fixtures, "flux1_dev_tensors.json")))
    pool = random_pool()
    for part in ["tokenizer", "tokenizer_2", "scheduler"]:
        shutil.copytree(os.path.join(tiny, part), os.path.join(folder, part), dirs_exist_ok=True)
    shutil.copy(os.path.join(tiny, "model_index.json"), folder)
    make_transformer(folder, fixtures)
    real = {
        "vae": (dict(block_out_channels=[128, 256, 512, 512]), "diffusion_pytorch_model.safetensors"),
        "text_encoder": (dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12,
                              projection_dim=768, vocab_size=49408), "model.safetensors"),
        "text_encoder_2": (dict(d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, vocab_size=32128),
                           "model.safetensors"),
    }
    for part, (changes, name) in real.items():
        os.makedirs(os.path.join(folder, part), exist_ok=True)
        config = json.load(open(os.path.join(tiny, part, "config.json"))) | changes
        json.dump(config, open(os.path.join(folder, part, "config.json"), "w"), indent=1)
        random_file(os.path.join(folder, part, name), tensors[part], pool)


def make_wide(folder, fixtures, family):
    """The fixture's repository whose transformer is as wide as the real one, and its text encoder as the transformer asks."""
    import shutil

    import diffusers
    import transformers

    tiny, *changes = WIDE[family]
    shutil.copytree(os.path.join(fixtures, tiny, "tiny"), folder, dirs_exist_ok=True)
    open(os.path.join(folder, "tokenizer", "chat_template.jinja"), "w").write(CHAT_TEMPLATE)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    for part, change in zip(["transformer", "text_encoder"], changes):
        part = os.path.join(folder, part)
        config = json.load(open(os.path.join(part, "config.json"))) | change
        shutil.rmtree(part)
        if "_class_name" in config:
            model = getattr(diffusers, config["_class_name"]).from_config(config)
        else:
            model = getattr(transformers, config["architectures"][0])(transformers.AutoConfig.for_model(**config))
        for weight in model.parameters():
            # Vectors are norms, of 1.
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.02)
        model.save_pretrained(part)


def report(px, seconds, device):
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else rss
    print(json.dumps({"px": px, "seconds": seconds, "peak_rss_bytes": rss, "peak_bytes": peak}), flush=True)


def timed(runs, device, work):
    """Seconds of each run, until the device is done."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for _ in range(runs):
        wait()
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def step_inputs(config, px, dtype, device):
    side = px // 16
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    img_ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).to(device)
    random = lambda *shape: torch.randn(*shape, dtype=dtype, device=device)
    return dict(
        hidden_states=random(1, side * side, 64), img_ids=img_ids, txt_ids=torch.zeros(TEXT_TOKENS, 3, device=device),
        encoder_hidden_states=random(1, TEXT_TOKENS, config.joint_attention_dim),
        pooled_projections=random(1, config.pooled_projection_dim),
        guidance=torch.tensor([4.5], device=device), timestep=torch.tensor([0.9], dtype=dtype, device=device),
    )


@torch.inference_mode()
def step(folder, sizes, dtype, device, runs):
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel.from_pretrained(os.path.join(folder, "transformer"), torch_dtype=dtype).to(device)
    for px in sizes:
        inputs = step_inputs(model.config, px, dtype, device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        report(px, timed(runs, device, lambda: model(**inputs)), device)


@torch.inference_mode()
def step_openvino(folder, sizes, dtype, device, runs):
    import openvino
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel.from_pretrained(os.path.join(folder, "transformer"), torch_dtype=torch.float32).eval()

    class Velocity(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            return self.model(**dict(zip(inputs, values)), return_dict=False)[0]

    hints = {"INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    for px in sizes:
        inputs = step_inputs(model.config, px, torch.float32, "cpu")
        network = openvino.convert_model(Velocity(), example_input=tuple(inputs.values()))
        network.reshape({found: list(value.shape) for found, value in zip(network.inputs, inputs.values())})
        network = openvino.Core().compile_model(network, "CPU", hints)
        values = [value.numpy() for value in inputs.values()]
        report(px, timed(runs, "cpu", lambda: network(values)), "cpu")


def step_of(folder, sizes, dtype, device, runs, out=None):
    from diffusers import DiffusionPipeline
    from safetensors.torch import save_file

    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    forward, seconds, after = pipe.transformer.forward, [], {}

    def measured(*args, **kwargs):
        results = []
        seconds.extend(timed(1, device, lambda: results.append(forward(*args, **kwargs))))
        return results[0]

    pipe.transformer.forward = measured
    for px in sizes:
        seconds.clear()
        for _ in range(runs):
            pipe(prompt=PROMPT, height=px, width=px, num_inference_steps=1, guidance_scale=0.0, output_type="latent",
                 generator=torch.manual_seed(0), callback_on_step_end=lambda pipe, i, t, now: after.update(now) or now)
        report(px, seconds, device)
    if out:
        save_file({"latents": after["latents"].float().contiguous()}, out)


@torch.inference_mode()
def decode(folder, sizes, dtype, device, runs):
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(os.path.join(folder, "vae"), torch_dtype=dtype).to(device)
    for px in sizes:
        latents = torch.randn(1, 16, px // 8, px // 8, dtype=dtype, device=device)
        report(px, timed(runs, device, lambda: model.decode(latents)), device)


def run(folder, sizes, dtype, device, runs):
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    prompt = "A serene mountain landscape at sunset"
    for px in sizes:
        make = lambda: pipe(prompt, height=px, width=px, num_inference_steps=1, guidance_scale=4.5)
        report(px, timed(runs, device, make), device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[
        "make-step", "make-transformer", "make-vae", "make-full", *(f"make-{family}" for family in WIDE), "step", "step-openvino", "step-of",
        "decode", "run"])
    parser.add_argument("dir")
    parser.add_argument("--px", default="1024", help="one side or several: 1024,2048")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--out", help="step-of: a file for the latents after the step")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    fixtures = os.path.join(os.path.dirname(__file__), "..", "tests", "fixtures")
    family = args.command.removeprefix("make-")
    if family in WIDE:
        make_wide(args.dir, fixtures, family)
    elif args.command in ("make-full", "make-transformer"):
        maker = make_full if args.command == "make-full" else make_transformer
        maker(args.dir, fixtures)
    elif args.command.startswith("make-"):
        {"make-step": make_step, "make-vae": make_vae}[args.command](args.dir)
    else:
        measure = {"step": step, "step-openvino": step_openvino, "step-of": functools.partial(step_of, out=args.out), "decode": decode, "run": run}
        sizes = [int(px) for px in args.px.split(",")]
        measure[args.command](args.dir, sizes, DTYPES[args.dtype], args.device, args.runs)


if __name__ == "__main__":
    main()
