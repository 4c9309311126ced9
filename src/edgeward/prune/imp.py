"""Iterative magnitude pruning with rewinding: train, remove the smallest, go back to an early step, train again.

    for level in imp(model, data, ImpOptions(keeps=(0.5, 0.2), train=TrainOptions(epochs=20), rewind=100)):
        level.mask, level.weights, level.accuracy

Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", arXiv 1912.05671.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.checkpoint import state_of
from edgeward.prune.criteria import Magnitude
from edgeward.prune.data import Data
from edgeward.prune.mask import Mask
from edgeward.prune.schedule import check_keep
from edgeward.prune.scope import SCOPES, prunable, select
from edgeward.prune.training import Progress, TrainOptions, steps_of, train

__all__ = ["ImpOptions", "Level", "imp", "levels"]

DENSE = TrainOptions()


def levels(keep: float, share: float = 0.2) -> tuple[float, ...]:
    """What is kept when each level removes `share` of the rest, down to `keep`: 0.8, 0.64, ..., keep."""
    check_keep(keep)
    check_keep(share)
    found = [1 - share]
    while found[-1] > keep * (1 + 1e-9):
        found.append(found[-1] * (1 - share))
    return (*found[:-1], keep)


@dataclass(frozen=True)
class ImpOptions:
    """keeps: falling shares of the weights, one for each level; see `levels`. train: the training of every level.

    rewind: the step that weights go back to and that every level's training goes on from; 0 is initialisation.
    scope, floor, names: as in `FindOptions`. checkpoint: folder to go on from after an interruption. progress: called
    with steps done, steps in all, and what is going on.
    """

    keeps: tuple[float, ...]
    train: TrainOptions = DENSE
    rewind: int = 0
    scope: str = "global"
    floor: int = 0
    names: tuple[str, ...] | None = None
    checkpoint: Path | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for keep in self.keeps:
            check_keep(keep)
        if not self.keeps or any(after >= before for before, after in zip(self.keeps, self.keeps[1:], strict=False)):
            raise PruneError(f"levels keep {list(self.keeps)}; give falling shares, such as (0.5, 0.2, 0.1)")
        if self.scope not in SCOPES:
            raise PruneError(f"scope {self.scope!r} is unknown; choose one of {', '.join(SCOPES)}")
        if self.rewind < 0 or self.floor < 0:
            raise PruneError(f"rewind is {self.rewind} and floor {self.floor}; choose 0 or more")


@dataclass(frozen=True, eq=False)
class Level:
    """A mask, the weights (parameters and buffers) trained under it, and what it cost to know the mask.

    accuracy: on the data held out, None without; epochs and seconds of all training before the mask was known.
    """

    keep: float
    mask: Mask
    weights: Mapping[str, Tensor]
    accuracy: float | None
    epochs: float
    seconds: float


def imp(model: nn.Module, data: Data, options: ImpOptions, *, held: Data | None = None) -> list[Level]:
    """Dense training and then each level's; the model ends with the last one's weights, in eval mode.

    The first level returned is the dense one, with keep 1. Raises PruneError when a layer would vanish (without a
    floor), the rewind step is not within the training, or the data does not fit.
    """
    mask = Mask.ones(model, options.names or prunable(model))
    per_epoch = steps_of(data, options.train)
    total = options.train.epochs * per_epoch
    if options.rewind > total:
        raise PruneError(f"rewind is step {options.rewind}; the training has {total}")
    runs = _Levels(options, total)
    early = train(model, data, runs.options(0, "rewind"), span=(0, options.rewind))
    rewound = state_of(model, copied=True)
    found: list[Level] = []
    steps, seconds = options.rewind, early.seconds
    for number, keep in enumerate((1.0, *options.keeps)):
        if number:
            mask = select(Magnitude().score(model, (), mask), mask, keep, options.scope, floor=options.floor)
            with torch.no_grad():
                for name, tensor in state_of(model).items():
                    tensor.copy_(rewound[name])
        history = train(
            model, data, runs.options(number, f"keep {keep:.3g}"), mask, held=held, span=(options.rewind, total)
        )
        about = {"criterion": "imp", "keep": str(keep), "level": str(number), "rewind": str(options.rewind)}
        accuracy = history.accuracies[-1] if history.accuracies else None
        weights = state_of(model, copied=True)
        found.append(Level(keep, Mask(mask.tensors, about), weights, accuracy, steps / per_epoch, seconds))
        steps, seconds = steps + history.steps, seconds + history.seconds
    return found


@dataclass(frozen=True)
class _Levels:
    """The training options of each level: its own checkpoint, its share of the progress."""

    all: ImpOptions
    steps: int

    def options(self, number: int, what: str) -> TrainOptions:
        folder, tell = self.all.checkpoint, self.all.progress
        path = folder / f"{number:03}-{what.partition(' ')[0]}.safetensors" if folder is not None else None

        def progress(done: int, total: int, text: str) -> None:
            if tell is not None:
                ours = self.steps - self.all.rewind
                every = self.all.rewind + ours * (len(self.all.keeps) + 1)
                tell(number * ours + done, every, f"{what}, {text}")

        return replace(self.all.train, checkpoint=path, progress=progress)
