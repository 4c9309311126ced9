"""SynFlow's score: what each weight carries of the flow of ones through the network, without data.

    flow(model, inputs[:1], mask)["fc1.weight"]        # float64, abs(w * dR/dw)

Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", arXiv 2006.05467.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.data import device_of
from edgeward.prune.mask import Mask
from edgeward.prune.saliency import lent, masked_weights, modes
from edgeward.vision.classification import logits_of

__all__ = ["flow"]

_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all ranks
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def flow(model: nn.Module, example: Tensor, mask: Mask) -> dict[str, Tensor]:
    """abs(w * dR/dw), float64, R the sum of the scores for an input of ones; `example` [1, ...] gives its shape.

    All parameters are replaced by their absolute values and norms pass their input on, in eval mode and double
    precision: in train mode or float32 deep networks overflow. The model is left as it is. Raises PruneError for
    an input that is not of floats.
    """
    if not example.is_floating_point():
        raise PruneError(
            f"SynFlow needs an input of ones, and the network takes {example.dtype}; choose another criterion"
        )
    device = device_of(model)
    masked = masked_weights(model, mask)
    all_parameters = {
        name: masked.get(name, one.detach()).abs().double()
        for name, one in model.named_parameters(remove_duplicate=False)
    }
    wanted = {name: all_parameters[name].requires_grad_() for name in masked}
    ones = torch.ones_like(example[:1], dtype=torch.float64, device=device)
    with modes(model, statistics=False), _neutral_norms(model):
        total = logits_of(lent(model, all_parameters, ones, torch.float64)).sum()
        if not total.requires_grad:
            raise PruneError("the output does not depend on the weights to prune; choose others")
        found = torch.autograd.grad(total, list(wanted.values()), materialize_grads=True)
    return {name: (one.detach() * slope).abs() for (name, one), slope in zip(wanted.items(), found, strict=True)}


@contextlib.contextmanager
def _neutral_norms(model: nn.Module) -> Iterator[None]:
    """Norm layers return their input: centred or rescaled, the flow would vanish or not be conserved."""

    def same(module: nn.Module, given: tuple[Any, ...], result: Any) -> Any:
        return given[0]

    handles = [one.register_forward_hook(same) for one in model.modules() if isinstance(one, _NORMS)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
