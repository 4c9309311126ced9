"""How often a network is right, and what a packing of the tensors at a cut costs it.

    accuracy(chain, test)                                                     # 0.917
    measure_drops(chain, ["int8+zstd", "avg2-bilinear/int8+zstd"], test)      # {"int8+zstd": (0.0, 0.001, ...), ...}

A packing (`edgeward.wire.packing`) is a transfer layer without weights, a codec, or both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeward.errors import ConfigError, ModelError, WireError
from edgeward.graph.chain import Chain
from edgeward.graph.trace import restored
from edgeward.split.labelled import Labelled

if TYPE_CHECKING:
    from edgeward.wire.packing import Packing

__all__ = [
    "Drop",
    "accuracy",
    "carried",
    "correct",
    "drop_between",
    "logits_of",
    "mean_bytes",
    "measure_drops",
    "paired_drops",
]

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


def measure_drops(
    chain: Chain, packings: Sequence[str], data: Labelled, boundaries: Sequence[int] | None = None
) -> dict[str, tuple[float | None, ...]]:
    """The share of accuracy lost per packing and boundary; see `paired_drops`, which has the standard errors too."""
    found = paired_drops(chain, packings, data, boundaries)
    return {text: tuple(None if one is None else one.share for one in drops) for text, drops in found.items()}


def paired_drops(
    chain: Chain, packings: Sequence[str], data: Labelled, boundaries: Sequence[int] | None = None
) -> dict[str, tuple[Drop | None, ...]]:
    """The accuracy lost when what crosses one boundary goes through a packing, untuned: a tuple per packing.

    Boundary 0 is the input (as the network takes it: normalised floats), k + 1 lies behind block k. None where it was
    not asked for, or where the packing does not fit what crosses: not one tensor, of another shape or type. The network
    up to a boundary runs once, what is behind it once per packing. Raises ConfigError for boundaries that are
    not there.
    """
    from edgeward.wire.packing import Packing

    parsed = {text: Packing.parse(text) for text in packings}
    wanted = range(len(chain) + 1) if boundaries is None else sorted(set(boundaries))
    if any(not 0 <= one <= len(chain) for one in wanted):
        raise ConfigError(
            f"boundaries {list(wanted)}: choose from 0 (the input) to {len(chain)} (behind the last block)"
        )
    tries = {(text, one): _Try(packing) for text, packing in parsed.items() for one in wanted}
    right: list[Tensor] = []
    with restored(chain), torch.no_grad():
        chain.eval()
        for images, labels in data.batches(BATCH):
            for boundary, values in enumerate(_boundaries(chain, images)):
                for text in parsed if boundary in wanted else ():
                    tries[text, boundary].add(chain, boundary, values, labels)
            right.append(logits_of(chain.outputs(values)).argmax(1) == labels)
    whole = torch.cat(right)
    return {
        text: tuple(tries[text, one].drop(whole) if one in wanted else None for one in range(len(chain) + 1))
        for text in parsed
    }


def carried(packing: Packing, value: Tensor) -> Tensor | None:
    """What arrives when `value` [n, ...] is sent, every sample as a message of its own; None when it cannot be sent."""
    from edgeward.wire.packing import unpack

    samples = value.detach().contiguous().numpy()
    if not packing.fits((1, *samples.shape[1:]), samples.dtype):
        return None
    try:
        arrived = [unpack(packing.pack([samples[index : index + 1]]))[0] for index in range(len(samples))]
    except (WireError, ConfigError):  # the codec is for other tensors
        return None
    return torch.from_numpy(np.concatenate(arrived))


@dataclass
class _Try:
    """One packing at one boundary, batch after batch; `fits` until it did not."""

    packing: Packing
    fits: bool = True
    right: list[Tensor] = field(default_factory=list)

    def add(self, chain: Chain, boundary: int, values: tuple[Any, ...], labels: Tensor) -> None:
        if not self.fits:
            return
        arrived = carried(self.packing, values[0]) if len(values) == 1 and isinstance(values[0], Tensor) else None
        if arrived is None:
            self.fits = False
            return
        after: tuple[Any, ...] = (arrived,)
        for index in range(boundary, len(chain)):
            after = chain.blocks[index](*after)
        self.right.append(logits_of(chain.outputs(after)).argmax(1) == labels)

    def drop(self, whole: Tensor) -> Drop | None:
        return drop_between(whole, torch.cat(self.right)) if self.fits else None


def _boundaries(chain: Chain, images: Tensor) -> Iterator[tuple[Any, ...]]:
    """What crosses each boundary, from the input to the last block's outputs."""
    values = chain.inputs(images)
    yield values
    for block in chain.blocks:
        values = block(*(one.clone() if isinstance(one, Tensor) else one for one in values))
        yield values


def mean_bytes(chain: Chain, boundary: int, packing: str, data: Labelled) -> float:
    """What one picture takes on the wire behind a boundary in this packing: mean, without the message around it."""
    from edgeward.wire.packing import Packing

    parsed, total = Packing.parse(packing), 0
    with restored(chain), torch.no_grad():
        chain.eval()
        for images, _ in data.batches(BATCH):
            values = list(_boundaries(chain, images))[boundary]
            for index in range(len(images)):
                total += sum(len(part.data) for part in parsed.pack([one[index : index + 1].numpy() for one in values]))
    return total / len(data)
