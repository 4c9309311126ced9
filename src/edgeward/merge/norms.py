"""Batch-norm statistics of a model whose weights were replaced.

    reestimate(module, (inputs for inputs, _ in task.train.batches(64)), 20)

The statistics belong to a model's own data and weights and are never shared; after tying they no longer fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

__all__ = ["reestimate"]


def reestimate(module: nn.Module, inputs: Iterable[Tensor], batches: int) -> None:
    """Set the running statistics of batch norms to the mean over so many batches; modes stay as they were."""
    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    norms = [one for one in norms if one.track_running_stats]
    if not norms:
        return
    training = {one: one.training for one in module.modules()}
    momenta = [one.momentum for one in norms]
    module.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    try:
        with torch.no_grad():
            for batch in islice((one for one in inputs if len(one) > 1), batches):
                module(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for one, was in training.items():
            one.training = was
