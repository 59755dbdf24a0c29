"""Losses of a gpt 2x64 by torch, with which ``serial/test_torch_gpt.py`` compares this engine's.

    PYTHONPATH=. python -m tests.torch_gpt

writes them anew to ``torch_gpt.json`` beside this file. Batches are functions of fixed numbers; initial weights are those of a linear
congruence, so that no file has to keep them.
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
STEPS, ROWS, CONTEXT, VOCABULARY, LAYERS, WIDTH, HEADS = 50, 8, 32, 50, 2, 64, 4
LEARNING_RATE = 0.003


def batches() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and next tokens of all steps, int32 (STEPS, ROWS, CONTEXT): of a stream in which a token says much of the next."""
    generator = np.random.default_rng(5)
    steps = generator.integers(1, 4, STEPS * ROWS * CONTEXT + 1)
    tokens = (np.cumsum(steps) % VOCABULARY).astype(np.int32)
    shape = STEPS, ROWS, CONTEXT
    return tokens[:-1].reshape(shape).copy(), tokens[1:].reshape(shape).copy()


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Initial weights by name, float32: matrices of deviation 0.05, norms 1, biases 0."""
    generator, found = np.random.default_rng(6), {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            found[name] = (0.05 * generator.standard_normal(shape)).astype(np.float32)
        else:
            found[name] = np.full(shape, name.endswith("weight"), np.float32)
    return found


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the engine, in its order."""
    found: dict[str, tuple[int, ...]] = {
        "embedding/weight": (VOCABULARY, WIDTH),
        "positions/weight": (CONTEXT, WIDTH),
    }
    for block in range(LAYERS):
        for part, (first, inner) in {
            "attention": ("qkv", (3 * WIDTH, WIDTH)),
            "feed_forward": ("up", (4 * WIDTH, 4 * WIDTH)),
        }.items():
            path = f"block{block}/{part}/body"
            found |= {f"{path}/norm/weight": (WIDTH,), f"{path}/norm/bias": (WIDTH,)}
            found |= {
                f"{path}/{first}/weight": (WIDTH, inner[0]),
                f"{path}/{first}/bias": inner[:1],
            }
            found |= {f"{path}/out/weight": (inner[1], WIDTH), f"{path}/out/bias": (WIDTH,)}
    return found | {"norm/weight": (WIDTH,), "norm/bias": (WIDTH,)}


def main() -> None:
    """Train with torch and write the mean loss of every step."""
    import torch
    from torch.nn import functional

    p = {name: torch.tensor(array, requires_grad=True) for name, array in weights(shapes()).items()}

    def norm(x, path: str):
        return functional.layer_norm(x, (WIDTH,), p[f"{path}/weight"], p[f"{path}/bias"])

    def dense(x, path: str):
        return x @ p[f"{path}/weight"] + p[f"{path}/bias"]

    def logits(tokens):
        x = p["embedding/weight"][tokens] + p["positions/weight"]
        for block in range(LAYERS):
            path = f"block{block}/attention/body"
            parts = dense(norm(x, f"{path}/norm"), f"{path}/qkv").split(WIDTH, dim=2)
            q, k, v = (a.reshape(ROWS, CONTEXT, HEADS, -1).transpose(1, 2) for a in parts)
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + dense(out.transpose(1, 2).reshape(ROWS, CONTEXT, WIDTH), f"{path}/out")
            path = f"block{block}/feed_forward/body"
            inner = functional.gelu(
                dense(norm(x, f"{path}/norm"), f"{path}/up"), approximate="tanh"
            )
            x = x + dense(inner, f"{path}/out")
        return norm(x, "norm") @ p["embedding/weight"].T

    optimizer, losses = torch.optim.Adam(p.values(), LEARNING_RATE), []
    for x, y in zip(*batches(), strict=True):
        targets = torch.tensor(y, dtype=torch.int64).flatten()
        loss = functional.cross_entropy(logits(torch.tensor(x)).flatten(0, 1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    FILE.write_text(json.dumps({"torch": torch.__version__, "losses": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
