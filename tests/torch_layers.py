"""Values of torch's layers, with which ``serial/test_torch_layers.py`` compares this engine's.

    PYTHONPATH=. python -m tests.torch_layers

writes them anew to ``torch_layers.npz`` beside this file, with torch 2.13 installed. Of every case it keeps what comes in, the
parameters, what comes out, the gradient that is given, and the gradients that come of it, all in float32.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")


def main() -> None:
    """Compute all cases and write the file."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    kept: dict[str, np.ndarray] = {"torch": np.array(torch.__version__)}

    def keep(name: str, function, x, **parameters) -> None:
        leaves = {key: value.detach().clone() for key, value in parameters.items()}
        x = x.clone()
        wanted = [a.requires_grad_() for a in (x, *leaves.values()) if a.is_floating_point()]
        out = function(x, **leaves)
        slope = torch.randn(out.shape)
        grads = torch.autograd.grad(out, wanted, slope)
        kept.update({f"{name}/x": x, f"{name}/out": out, f"{name}/slope": slope})
        names = [*(["x"] if x.is_floating_point() else []), *leaves]
        for key, grad in zip(names, grads, strict=True):
            kept[f"{name}/grad/{key}"] = grad
        for key, value in leaves.items():
            kept[f"{name}/parameter/{key}"] = value

    def attention(x, heads: int, shared: int, causal: bool):
        rows, length, width = x.shape
        size = width // (heads + 2 * shared)
        parts = x.split([heads * size, shared * size, shared * size], dim=2)
        q, k, v = (part.reshape(rows, length, -1, size).transpose(1, 2) for part in parts)
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=shared < heads
        )
        return out.transpose(1, 2).reshape(rows, length, heads * size)

    x = 2 * torch.randn(3, 7, 20) + 1
    w, b = 1 + 0.3 * torch.randn(20), 0.3 * torch.randn(20)
    keep(
        "layer norm",
        lambda x, weight, bias: functional.layer_norm(x, (20,), weight, bias),
        x,
        weight=w,
        bias=b,
    )
    keep("rms norm", lambda x, weight: functional.rms_norm(x, (20,), weight, 1e-5), x, weight=w)
    keep("gelu", functional.gelu, x)
    keep("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh"), x)
    keep("silu", functional.silu, x)
    keep("swiglu", lambda x: functional.silu(x[..., :10]) * x[..., 10:], x)
    codes = torch.randint(0, 11, (3, 7), dtype=torch.int32)
    keep(
        "embedding",
        lambda x, weight: functional.embedding(x, weight),
        codes,
        weight=torch.randn(11, 5),
    )
    for causal in (True, False):
        word = "causal" if causal else "full"
        keep(
            f"attention, {word}", lambda x, c=causal: attention(x, 4, 4, c), torch.randn(2, 37, 96)
        )
        keep(f"grouped, {word}", lambda x, c=causal: attention(x, 4, 2, c), torch.randn(2, 70, 40))
    x, weight = torch.randn(2, 9, 8), torch.randn(300, 8)
    targets = torch.randint(0, 300, (2, 9))
    targets[0, 3] = targets[1, 0] = -1
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    logits = nn.functional.linear(*leaves)
    loss = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    loss.backward()
    kept |= {"loss/x": x, "loss/weight": weight, "loss/y": targets, "loss/loss": loss.detach()}
    kept |= {"loss/grad/x": leaves[0].grad, "loss/grad/weight": leaves[1].grad}
    arrays = {
        key: np.asarray(getattr(value, "detach", lambda v=value: v)())
        for key, value in kept.items()
    }
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
