"""Options that one optimizer alone has. Imports neither NumPy nor Numba: ``--help`` reads it."""

from dataclasses import dataclass

from lepton_mpi.options.option import ABOVE_0, FRACTION, WHOLE_FROM_0, Checked, option


@dataclass(frozen=True, kw_only=True)
class AdamOptions(Checked):
    """Of adam and adamw. Defaults: Kingma and Ba, ICLR 2015, algorithm 1; epsilon stands beside the root of the corrected moment."""

    beta_1: float = option(0.9, "how slowly the mean of gradients forgets", FRACTION)
    beta_2: float = option(0.999, "how slowly the mean of their squares forgets", FRACTION)
    epsilon: float = option(1e-8, "added to the root of that mean", ABOVE_0)
    freeze_variance_after: int = option(
        0,
        "steps after which that mean stays as it is, for --compress sign, topk or randomk (1-bit Adam); 0: it never does",
        WHOLE_FROM_0,
    )


@dataclass(frozen=True, kw_only=True)
class LionOptions(Checked):
    """Defaults: Chen et al., NeurIPS 2023, section 5."""

    beta_1: float = option(0.9, "weight of the mean of gradients in a step's direction", FRACTION)
    beta_2: float = option(0.99, "how slowly the mean of gradients forgets", FRACTION)


@dataclass(frozen=True, kw_only=True)
class AdagradOptions(Checked):
    """Default as in torch."""

    epsilon: float = option(1e-10, "added to the root of the sum of squares", ABOVE_0)


@dataclass(frozen=True, kw_only=True)
class RmspropOptions(Checked):
    """Defaults as in torch, where rho is alpha; Keras has 0.9 and 1e-7."""

    rho: float = option(0.99, "how slowly the mean of squared gradients forgets", FRACTION)
    epsilon: float = option(1e-8, "added to the root of that mean", ABOVE_0)
