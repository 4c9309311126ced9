"""How often a classifier is right on labelled pictures.

accuracy(model, test)                                   # 0.917
drop_between(correct(before, test), correct(after, test))     # Drop(share=0.004, error=0.002)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import ModelError
from edgeward.graph.trace import restored
from edgeward.vision.labelled import Labelled

__all__ = ["BATCH", "Drop", "accuracy", "correct", "drop_between", "logits_of"]

BATCH = 100


@dataclass(frozen=True)
class Drop:
    """share: top-1 accuracy lost (negative: gained). error: its standard error, from the same pictures both ways."""

    share: float
    error: float


def logits_of(result: Any) -> Tensor:
    """The scores [n, classes] in what a network returns. Raises ModelError when there are none."""
    found = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", result)
    found = found[0] if isinstance(found, list | tuple) and found else found
    if not isinstance(found, Tensor) or found.dim() != 2:
        shown = list(found.shape) if isinstance(found, Tensor) else type(result).__name__
        raise ModelError(f"the network returns {shown}; a classifier returns scores [n, classes]")
    return found


def accuracy(model: nn.Module, data: Labelled) -> float:
    """The share of pictures whose highest score is that of their label, in eval mode. `model` may be a `Chain`."""
    return float(correct(model, data).double().mean())


def correct(model: nn.Module, data: Labelled) -> Tensor:
    """For every picture whether the network is right: bool [n]. Raises ModelError when it returns no scores."""
    found = []
    with restored(model), torch.no_grad():
        model.eval()
        for images, labels in data.batches(BATCH):
            found.append(logits_of(model(images)).argmax(1) == labels)
    return torch.cat(found)


def drop_between(before: Tensor, after: Tensor) -> Drop:
    """What was lost from one to the other, for the same pictures: bool [n] each."""
    difference = before.double() - after.double()
    error = float(difference.std()) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    return Drop(float(difference.mean()), error)
