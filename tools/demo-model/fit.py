"""How the judges learn, and where what they have learnt is kept."""

import torch


def fit(model, loss, path, steps, rate, warmup, every):
    """Steps of AdamW down the loss of a batch, at a rate that rises over `warmup` and falls to a fiftieth; told of `every` so many, and saved."""
    opt = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=.01)
    for step in range(steps):
        for g in opt.param_groups:
            g["lr"] = rate * min(1, (step + 1) / warmup) * (1.02 - step / steps)
        l = loss()
        opt.zero_grad()
        l.backward()
        opt.step()
        if step % every == every - 1:
            print(f"step {step + 1} loss {l.item():.3f}", flush=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def load(model, path):
    model.load_state_dict(torch.load(path))
    return model.eval()
