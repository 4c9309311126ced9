"""What a packing of the tensors at a cut costs a network in accuracy.

    measure_drops(chain, ["int8+zstd", "avg2-bilinear/int8+zstd"], test)      # {"int8+zstd": (0.0, 0.001, ...), ...}

A packing (`edgeward.wire.packing`) is a transfer layer without weights, a codec, or both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgeward.errors import ConfigError, WireError
from edgeward.graph.chain import Chain
from edgeward.graph.trace import restored
from edgeward.vision.classification import BATCH, Drop, drop_between, logits_of
from edgeward.vision.labelled import Labelled

if TYPE_CHECKING:
    from edgeward.wire.packing import Packing

__all__ = [
    "carried",
    "mean_bytes",
    "measure_drops",
    "paired_drops",
]


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
