"""The dimensions of the demo model: diffusers' and transformers' own classes, small in every dimension."""
import math

import torch

BASE_PX = 512          # training resolution: 32 x 32 tokens
TEXT_TOKENS = 24       # T5 tokens; tokenizer_2's model_max_length says so to whoever loads the model
LATENT_CHANNELS = 16


def autoencoder():
    """AutoencoderKL; two wide norm groups, since a norm over few channels forgets a picture's overall colour, and no attention."""
    from diffusers import AutoencoderKL
    model = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 48, 64), layers_per_block=1, latent_channels=LATENT_CHANNELS, norm_num_groups=2,
        use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False, sample_size=BASE_PX,
        scaling_factor=1.0, shift_factor=0.0)
    for name, p in model.named_parameters():         # each residual block starts as its shortcut
        if ".conv2.weight" in name:
            torch.nn.init.zeros_(p)
    return model


def transformer():
    from diffusers import FluxTransformer2DModel
    return FluxTransformer2DModel(
        patch_size=1, in_channels=4 * LATENT_CHANNELS, num_layers=2, num_single_layers=5, attention_head_dim=64,
        num_attention_heads=3, joint_attention_dim=96, pooled_projection_dim=96, guidance_embeds=True, axes_dims_rope=(8, 28, 28))


def clip(vocab_size, eos_token_id):
    from transformers import CLIPTextConfig, CLIPTextModel
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=vocab_size, hidden_size=96, intermediate_size=192, projection_dim=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=eos_token_id - 1, eos_token_id=eos_token_id, pad_token_id=eos_token_id))


def t5(vocab_size):
    from transformers import T5Config, T5EncoderModel
    return T5EncoderModel(T5Config(
        vocab_size=vocab_size, d_model=96, d_kv=24, d_ff=192, num_layers=2, num_heads=4, relative_attention_num_buckets=32,
        relative_attention_max_distance=128, dropout_rate=0.0, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False))


def pack(z):
    """Latents [B, C, h, w] to tokens [B, h/2 w/2, 4C], FLUX's order."""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(x, h, w):
    """Tokens [B, h/2 w/2, 4C] to latents [B, C, h, w]."""
    b, _, c = x.shape
    return x.view(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


def image_ids(rows, cols, stride=1.0):
    """Positions [rows cols, 3]; with a stride of 2 a half-size picture sits on the full picture's positions."""
    y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(cols) * stride, indexing="ij")
    off = (stride - 1) / 2
    return torch.stack([torch.zeros(rows, cols), y + off, x + off], -1).reshape(-1, 3)


def sigmas(steps, mu=1.15):
    """FLUX's schedule: 1 .. 1/steps, shifted by e^mu, then 0."""
    s = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    e = math.exp(mu)
    return torch.cat([e / (e + 1 / s - 1), torch.zeros(1, dtype=torch.float64)]).float()


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), for matrices and convolutions; scaled to AdamW's step size."""

    def __init__(self, params, lr, momentum=.95, weight_decay=.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            shapes = {}
            for p in g["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, ps in shapes.items():
                for p in ps:
                    if "m" not in self.state[p]:
                        self.state[p]["m"] = torch.zeros_like(p)
                    self.state[p]["m"].lerp_(p.grad, 1 - g["momentum"])
                x = torch.stack([p.grad.lerp(self.state[p]["m"], g["momentum"]).flatten(1) for p in ps])
                x = orthogonal(x) * .2 * max(x.shape[1:]) ** .5
                for p, u in zip(ps, x):
                    p.mul_(1 - g["lr"] * g["weight_decay"]).add_(u.reshape(p.shape), alpha=-g["lr"])


def orthogonal(x):
    """Five quintic Newton-Schulz steps on a batch of matrices, in bf16."""
    tall = x.shape[1] > x.shape[2]
    y = (x.mT if tall else x).to(torch.bfloat16)
    y = y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = y @ y.mT
        y = 3.4445 * y + (-4.7750 * a + 2.0315 * a @ a) @ y
    y = y.float()
    return y.mT if tall else y


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, modules, decay):
        self.live = [p for m in modules for p in m.parameters()]
        self.mean = [p.detach().clone() for p in self.live]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self):
        self.steps += 1
        k = min(self.decay, 1 - 1 / (self.steps + 1))
        torch._foreach_lerp_(self.mean, self.live, 1 - k)

    @torch.no_grad()
    def swap(self):
        """Exchanges the averaged and the live values."""
        for a, b in zip(self.mean, self.live):
            t = a.clone()
            a.copy_(b)
            b.copy_(t)

    def state(self):
        return {"mean": self.mean, "steps": self.steps}

    def load(self, s):
        for a, b in zip(self.mean, s["mean"]):
            a.copy_(b)
        self.steps = s["steps"]
