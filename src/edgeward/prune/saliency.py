"""Gradients of the loss with respect to masked weights, and the Hessian's product with them; the model is left alone.

    found = slopes(model, batches, mask, curvature=True)
    found.gradient["fc1.weight"], found.curvature["fc1.weight"]      # g and H g

Weights and buffers are lent to the forward pass by `torch.func.functional_call`, so the model's own weights, their
gradients, batch-norm statistics and `requires_grad` are never touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeward.errors import PruneError
from edgeward.prune.data import Batch, checked_batches, cross_entropy, device_of
from edgeward.prune.mask import Mask
from edgeward.vision.classification import logits_of

__all__ = ["Loss", "Slopes", "fitting", "lent", "masked_weights", "modes", "slopes"]

Loss = Callable[[Any, Tensor], Tensor]
_BATCH_NORMS = nn.modules.batchnorm._NormBase  # batch and instance norms of all ranks


@dataclass(frozen=True, eq=False)
class Slopes:
    """weights: w. gradient: g = dL/dw of the mean loss. curvature: H g, empty if not asked for. 0 where not kept."""

    weights: Mapping[str, Tensor]
    gradient: Mapping[str, Tensor]
    curvature: Mapping[str, Tensor]


def slopes(
    model: nn.Module,
    batches: Iterable[Batch],
    mask: Mask,
    *,
    curvature: bool = False,
    temperature: float = 1.0,
    loss: Loss = cross_entropy,
) -> Slopes:
    """Of the mean loss over all batches, each weighted by its size; memory is that of one batch at a time.

    Batch norms use their batch's own statistics and dropout is off. temperature: what the output is divided by.
    H g is half the gradient of sum(g^2) for the g of all batches together, so it takes a second pass over them.
    Raises PruneError when the data is empty or does not fit the network.
    """
    given = checked_batches(batches)
    device = device_of(model)
    weights = {name: one.requires_grad_() for name, one in masked_weights(model, mask).items()}
    total = sum(len(labels) for _, labels in given)

    def losses() -> Iterator[Tensor]:
        for inputs, labels in given:
            output = lent(model, weights, inputs.to(device))
            scaled = output if temperature == 1 else _scaled(output, temperature)
            yield loss(scaled, labels.to(device)) * (len(labels) / total)

    with modes(model, statistics=True), contextlib.ExitStack() as stack:
        if curvature:  # the fused kernels of attention have no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        gradient = _accumulated(mask, (_gradients(one, weights, create_graph=False) for one in losses()))
        second: dict[str, Tensor] = {}
        if curvature:
            products = (_product(_gradients(one, weights, create_graph=True), gradient) for one in losses())
            second = _accumulated(mask, (_gradients(one, weights, create_graph=False) for one in products))
    return Slopes({name: one.detach() for name, one in weights.items()}, gradient, second)


def masked_weights(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """Copies of the mask's parameters, 0 where not kept. Raises PruneError for a parameter that is not there."""
    own = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for name, kept in mask.tensors.items():
        if name not in own or own[name].shape != kept.shape:
            raise PruneError(f"the mask of {name} {list(kept.shape)} does not fit the network; use the one it is of")
        found[name] = own[name].detach().masked_fill(~kept.to(own[name].device), 0)
    return found


def lent(model: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor, dtype: torch.dtype | None = None) -> Any:
    """What the model returns for `inputs` with these weights instead of its own, and copies of its buffers.

    dtype: of the buffers that are floating, where it is another. Raises PruneError when the inputs do not fit.
    """
    buffers = {
        name: one.to(dtype) if dtype is not None and one.is_floating_point() else one.clone()
        for name, one in model.named_buffers()
    }
    with fitting(inputs):
        return torch.func.functional_call(model, {**buffers, **weights}, (inputs,))


@contextlib.contextmanager
def fitting(inputs: Tensor) -> Iterator[None]:
    """What a network raises for `inputs` that it cannot take becomes PruneError; lack of memory does not."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PruneError(
            f"the network does not take a batch of {inputs.dtype} {list(inputs.shape)} ({first[:200]}); give data of "
            "its input's shape, at least two examples a batch"
        ) from error


@contextlib.contextmanager
def modes(model: nn.Module, *, statistics: bool) -> Iterator[None]:
    """Eval mode, so without dropout, but norms of the batch's own statistics where asked for; afterwards as before."""
    before = {module: module.training for module in model.modules()}
    device = device_of(model)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
            for module in before:
                module.training = statistics and isinstance(module, _BATCH_NORMS)
            yield
    finally:
        for module, was in before.items():
            module.training = was


def _scaled(output: Any, temperature: float) -> Tensor:
    return logits_of(output) / temperature


def _gradients(value: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool) -> dict[str, Tensor]:
    """Zero where the value does not depend on a weight."""
    if not value.requires_grad:
        raise PruneError("the loss does not depend on the weights to prune; choose others, or another loss")
    found = torch.autograd.grad(value, list(weights.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def _accumulated(mask: Mask, parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Their sum, 0 for what is not kept: it is no variable of the sparse network."""
    total: dict[str, Tensor] = {}
    for part in parts:
        total = part if not total else {name: total[name].add_(part[name]) for name in total}
    return {name: one.detach().masked_fill_(~mask.tensors[name].to(one.device), 0) for name, one in total.items()}


def _product(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(one * theirs[name]).sum() for name, one in ours.items()]).sum()
