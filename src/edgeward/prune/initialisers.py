"""How the weights of a layer are drawn before training, and which way some weights were drawn.

    initialise_(model, "fan-in", seed=0)
    initialiser_of({"conv1": model.conv1.weight})      # "fan-in"

"fan-in" and "fan-out" are the normal ones of He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2;
"default" is what torch's own layers do: uniform within 1 / sqrt(fan-in).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError, nearest

__all__ = ["INITIALISERS", "check_initialiser", "fan_of", "initialise_", "initialiser_of", "spread_of"]

INITIALISERS = ("fan-in", "fan-out", "default")


def check_initialiser(name: str) -> None:
    """Raises PruneError for an unknown one."""
    if name not in INITIALISERS:
        raise PruneError(f"there is no initialiser {name!r}; {nearest(name, INITIALISERS)}")


def fan_of(shape: Sequence[int], initialiser: str) -> int:
    """Inputs of one output ("fan-in", "default") or outputs of one input ("fan-out") of a weight [out, in, ...]."""
    return shape[1 if initialiser != "fan-out" else 0] * math.prod(shape[2:])


def spread_of(shape: Sequence[int], initialiser: str) -> float:
    """The standard deviation of the normal ones, the bound of the uniform "default"."""
    return math.sqrt((1 if initialiser == "default" else 2) / fan_of(shape, initialiser))


def initialise_(model: nn.Module, initialiser: str, seed: int, layers: Iterable[str] | None = None) -> None:
    """Draw the weights of convolutions and linear layers anew, in place; of all, or of the layers named.

    Biases become 0, or with "default" uniform as the weights are. What batch norms have seen is forgotten, for it was
    of other weights. Torch's random state stays as it was. Raises PruneError for an unknown initialiser.
    """
    check_initialiser(initialiser)
    generator = torch.Generator().manual_seed(seed)
    wanted = None if layers is None else set(layers)
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
        if not isinstance(module, nn.modules.conv._ConvNd | nn.Linear) or (wanted is not None and path not in wanted):
            continue
        spread = spread_of(module.weight.shape, initialiser)
        with torch.no_grad():
            module.weight.copy_(_drawn(module.weight.shape, spread, initialiser, generator))
            if module.bias is not None:
                width = spread if initialiser == "default" else 0.0
                module.bias.copy_(_drawn(module.bias.shape, width, initialiser, generator))


def initialiser_of(weights: Mapping[str, Tensor]) -> str:
    """The initialiser whose spread and shape all these weights [out, in, ...] have; "" when none fits.

    Where fan-in and fan-out are equal everywhere, it is "fan-in".
    """
    for initialiser in INITIALISERS:
        if all(_fits(weight.detach().double(), initialiser) for weight in weights.values()):
            return initialiser
    return ""


def _drawn(shape: torch.Size, spread: float, initialiser: str, generator: torch.Generator) -> Tensor:
    if initialiser == "default":
        return (2 * torch.rand(shape, generator=generator) - 1) * spread
    return torch.randn(shape, generator=generator) * spread


def _fits(weight: Tensor, initialiser: str) -> bool:
    spread = spread_of(weight.shape, initialiser)
    largest = float(weight.abs().max())
    if initialiser == "default":
        if largest > spread * (1 + 1e-6):
            return False
        spread /= math.sqrt(3)
    elif weight.numel() >= 100 and largest < 1.8 * spread:  # uniform with the variance of the normal ends at 1.73
        return False
    deviation = math.sqrt(float((weight**2).mean()))
    # Five standard errors of an estimate from so many weights.
    return abs(deviation / spread - 1) <= max(0.01, 5 / math.sqrt(2 * weight.numel()))
