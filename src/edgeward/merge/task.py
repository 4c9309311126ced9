"""A model with its own data and its own measure of accuracy: what a search for shared layers is given, one per model.

    task = Task(network, train=labelled_a, validation=labelled_b, test=labelled_c)
    task.metric(task.module, task.test)          # 0.94

Data of different models is never put together: every task has its own loaders, which may open files as they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import ModelError, PlanError
from edgeward.vision.classification import accuracy, logits_of
from edgeward.vision.labelled import Labelled
from edgeward.zoo.network import Network

__all__ = ["Loader", "Loss", "Metric", "Samples", "Task", "check_tasks", "cross_entropy", "top1"]

Loss = Callable[[Any, Any], Tensor]


class Loader(Protocol):
    """Examples of one model; `vision.labelled.Labelled` is one."""

    def __len__(self) -> int:
        """How many examples there are."""

    def batches(self, size: int, seed: int | None = None) -> Iterator[tuple[Tensor, Any]]:
        """Inputs and what the loss compares with, in order, or shuffled by `seed`; the last batch may be smaller."""


Metric = Callable[[nn.Module, Loader], float]


@dataclass(frozen=True, eq=False)
class Samples:
    """Examples in memory. inputs: [n, ...]; targets: int64 [n], or whatever the loss takes."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Loader.batches`."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(order), size):
            chosen = torch.from_numpy(order[start : start + size])
            yield self.inputs[chosen], self.targets[chosen]


def cross_entropy(output: Any, labels: Tensor) -> Tensor:
    """The usual loss of a classifier, whose output may be a tensor or hold logits."""
    return functional.cross_entropy(logits_of(output), labels)


def top1(model: nn.Module, data: Loader) -> float:
    """The share of examples whose highest score is that of their label, in eval mode, 0 to 1."""
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    return accuracy(model, cast(Labelled, _Moved(data, device)))  # which uses nothing but its batches


@dataclass(frozen=True, eq=False)
class _Moved:
    """Batches on another device."""

    data: Loader
    device: torch.device

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in self.data.batches(size):
            yield inputs.to(self.device), labels.to(self.device)


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model and its data.

    train, validation, test: three parts that have no example in common; the last is for the gate before shipping only.
    metric: higher is better, 0 to 1; top-1 accuracy unless another is given (AP50 of a detector). loss: of the model's
    output in training mode and the batch's second half.
    """

    network: Network
    train: Loader
    validation: Loader
    test: Loader
    metric: Metric = top1
    loss: Loss = cross_entropy

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return next(self.module.parameters()).device


def check_tasks(tasks: tuple[Task, ...]) -> None:
    """Raise PlanError for two models of one name, fewer than two models, or one whose data is missing."""
    if len(tasks) < 2:
        raise PlanError(f"{len(tasks)} model cannot share anything; give at least two")
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(f"two models are called {name!r}; give each a name of its own")
    for task in tasks:
        if not any(True for _ in task.module.parameters()):
            raise ModelError(f"{task.name} has no parameters; leave it out")
        for part in ("train", "validation", "test"):
            loader = getattr(task, part)
            if loader is None or not len(loader):
                raise PlanError(f"{task.name} has no {part} data; merging retrains and judges every model on its own")
