"""Epochs of a student network that learns from labels and from its teacher, part of it frozen.

    history = Training(student, teacher, after=3, inserted=True, options=TuneOptions()).run(train, held, identity)

The loss is cross entropy and distillation (Hinton et al., arXiv 1503.02531); the learning rate falls as a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import ConfigError
from edgeward.graph.chain import Chain
from edgeward.split.checkpoint import Checkpoint, History, load_checkpoint, save_checkpoint, weights_of
from edgeward.vision.classification import accuracy, logits_of
from edgeward.vision.labelled import Labelled

__all__ = ["MODES", "Progress", "Training", "TuneOptions", "loss_of"]

MODES = ("whole", "edge", "layer")
OPTIMIZERS = ("sgd", "adam")
Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class TuneOptions:
    """How to tune.

    mode: "whole", "edge" (the layer and what is behind the cut; the device's part stays bit for bit, with its
    batch-norm statistics), or "layer" (only a layer with weights). learning_rate: of the first step. distillation:
    share of the loss that is distillation, at `temperature`. validation: share of the training pictures held out.
    augment: mirror pictures at random. checkpoint: file to go on from after an interruption, written after every epoch.
    progress: called with steps done, steps in all, and what is going on.
    """

    epochs: int = 3
    mode: str = "whole"
    learning_rate: float = 0.01
    optimizer: str = "sgd"
    batch: int = 100
    distillation: float = 0.5
    temperature: float = 4.0
    validation: float = 0.1
    augment: bool = True
    seed: int = 0
    checkpoint: Path | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode {self.mode!r} is unknown; choose one of {', '.join(MODES)}")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer {self.optimizer!r} is unknown; choose one of {', '.join(OPTIMIZERS)}")
        for name, low, high in (
            ("epochs", 0, 1000),
            ("learning_rate", 1e-9, 10),
            ("batch", 2, 65536),
            ("distillation", 0, 1),
            ("temperature", 0.1, 100),
            ("validation", 0.001, 0.5),
            ("seed", 0, 2**31),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; choose from {low} to {high}")


class Training:
    """The student, who learns, and its teacher, the untouched network."""

    def __init__(self, student: Chain, teacher: Chain, after: int, inserted: bool, options: TuneOptions) -> None:
        last = after + 2 if options.mode == "layer" else len(student) - 1
        first = 0 if options.mode == "whole" else after + 1
        assert inserted or options.mode != "layer"
        self.student, self.teacher, self.options = student, teacher, options
        self.trained = range(first, last + 1)
        blocks: list[nn.Module] = list(student.blocks)
        # A tensor that the device's part uses too stays as it is.
        frozen = {one for place, block in enumerate(blocks) if place not in self.trained for one in block.parameters()}
        learning = {one: None for place in self.trained for one in blocks[place].parameters() if one not in frozen}
        self.parameters = [one for one in learning if one.requires_grad]
        if not self.parameters:
            raise ConfigError(f"mode {options.mode!r} has no weights to tune behind block {after}; choose mode whole")
        self.frozen = [one for one in frozen if one.requires_grad]
        self.optimizer: torch.optim.Optimizer
        if options.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.parameters, options.learning_rate, momentum=0.9, weight_decay=1e-4)
        else:
            self.optimizer = torch.optim.Adam(self.parameters, options.learning_rate)

    def run(self, train: Labelled, held: Labelled, identity: str) -> History:
        """All epochs; the student ends as it was after the best."""
        path = self.options.checkpoint
        begun = load_checkpoint(path, identity, self.student, self.optimizer) if path is not None else None
        if begun is None:
            begun = Checkpoint(History((accuracy(self.student, held),), 0), weights_of(self.student, copied=True))
        history, best = begun.history, begun.best
        was = self.teacher.training
        self.teacher.eval()
        for one in self.frozen:
            one.requires_grad_(False)
        try:
            for epoch in range(len(history.validation), self.options.epochs + 1):
                self._epoch(train, epoch)
                history = history.with_epoch(accuracy(self.student, held))
                if history.best_epoch == epoch:
                    best = weights_of(self.student, copied=True)
                if path is not None:
                    save_checkpoint(path, identity, Checkpoint(history, best), self.student, self.optimizer)
        finally:
            for one in self.frozen:
                one.requires_grad_(True)
            self.teacher.train(was)
            self.student.eval()
        with torch.no_grad():
            for name, tensor in weights_of(self.student).items():
                tensor.copy_(best[name])
        return history

    def _epoch(self, train: Labelled, epoch: int) -> None:
        options = self.options
        steps = math.ceil(len(train) / options.batch)
        for place, block in enumerate(self.student.blocks):
            block.train(place in self.trained and options.mode != "layer")
        # Of the seed and the epoch alone, so that a resumed run draws what an uninterrupted one does.
        seed = options.seed * 1009 + epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step, (images, labels) in enumerate(train.batches(options.batch, seed, augment=options.augment)):
                done = (epoch - 1) * steps + step
                if options.progress is not None:
                    options.progress(done, options.epochs * steps, f"epoch {epoch} of {options.epochs}")
                if len(labels) > 1:  # a batch norm needs two
                    rate = options.learning_rate * (1 + math.cos(math.pi * done / (options.epochs * steps))) / 2
                    self._step(images, labels, rate)

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            target = logits_of(self.teacher(images.clone())) if self.options.distillation else None
            values = self.student.inputs(images)
            for block in self.student.blocks[: self.trained.start]:
                values = block(*values)
        for block in self.student.blocks[self.trained.start :]:
            values = block(*values)
        loss = loss_of(logits_of(self.student.outputs(values)), labels, target, self.options)
        if not torch.isfinite(loss):
            raise ConfigError(
                f"tuning diverged at learning rate {self.options.learning_rate}; choose a smaller one, such as "
                f"{self.options.learning_rate / 10:g}"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def loss_of(scores: Tensor, labels: Tensor, target: Tensor | None, options: TuneOptions) -> Tensor:
    """Of scores [n, classes] for labels [n], and for the teacher's scores where there are any."""
    hard = functional.cross_entropy(scores, labels)
    if target is None:
        return hard
    ours, theirs = (functional.log_softmax(one / options.temperature, 1) for one in (scores, target))
    soft = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * options.temperature**2
    return (1 - options.distillation) * hard + options.distillation * soft
