"""Training a network, dense or with a mask: what the mask does not keep is exactly 0 after every step.

history = train(model, data, TrainOptions(epochs=20), mask, held=test)
history.accuracies[-1]
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.checkpoint import History, identity_of, load_checkpoint, save_checkpoint
from edgeward.prune.data import Data, cross_entropy, device_of
from edgeward.prune.mask import Mask
from edgeward.prune.saliency import Loss, fitting
from edgeward.vision.classification import logits_of

__all__ = ["RATES", "Progress", "TrainOptions", "accuracy_of", "rate_at", "steps_of", "train"]

RATES = ("cosine", "steps", "constant")
Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class TrainOptions:
    """Stochastic gradient descent, as networks of CIFAR's scale are usually trained.

    rate: how the learning rate goes from its first value: "cosine" to 0, "steps" divides it by 10 at 50 % and 75 % of
    the steps, "constant". loss: of the model's output and labels. checkpoint: file to go on from after an interruption,
    written after every epoch. progress: called with steps done, steps in all, and what is going on.
    """

    epochs: int = 20
    learning_rate: float = 0.1
    rate: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 128
    augment: bool = False
    seed: int = 0
    loss: Loss = field(default=cross_entropy, compare=False)
    checkpoint: Path | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.rate not in RATES:
            raise PruneError(f"rate {self.rate!r} is unknown; choose one of {', '.join(RATES)}")
        for name, low, high in (
            ("epochs", 0, 10_000),
            ("learning_rate", 1e-9, 100),
            ("momentum", 0, 0.9999),
            ("weight_decay", 0, 1),
            ("batch", 1, 1 << 20),
            ("seed", 0, 2**31),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise PruneError(f"{name} is {value}; choose from {low} to {high}")


def train(
    model: nn.Module,
    data: Data,
    options: TrainOptions,
    mask: Mask | None = None,
    *,
    held: Data | None = None,
    span: tuple[int, int] | None = None,
) -> History:
    """Train in place; the model ends in eval mode. Resumed, it ends as if it had never stopped.

    held: data that accuracy is measured on after every epoch. span: only the steps from the first to before the
    second, as in a training of all `options.epochs`. Raises PruneError when the data does not fit the network or the
    loss is not finite, StoreError for another training's checkpoint.
    """
    if mask is not None:
        mask.apply_(model)
    run = _Run(model, data, options, mask)
    begin, end = span or (0, options.epochs * run.steps)
    if not 0 <= begin <= end <= options.epochs * run.steps:
        raise PruneError(f"steps {begin} to {end} are not within the training's {options.epochs * run.steps}")
    path = options.checkpoint
    kept = {name: getattr(options, name) for name in options.__dataclass_fields__ if name not in _LEFT_OUT}
    told = (kept, getattr(options.loss, "__qualname__", ""), begin, end)
    identity = identity_of(model, (data, held), told, mask) if path is not None else ""
    history = load_checkpoint(path, identity, model, run.optimizer) if path is not None else None
    history = history or History()
    while begin + history.steps < end:
        started = time.perf_counter()
        at = begin + history.steps
        upto = min(end, (at // run.steps + 1) * run.steps)
        loss = run.epoch(at, upto)
        score = (accuracy_of(model, held),) if held is not None else ()
        history = replace(
            history,
            steps=history.steps + upto - at,
            losses=(*history.losses, loss),
            accuracies=history.accuracies + score,
            seconds=history.seconds + time.perf_counter() - started,
        )
        if path is not None:
            save_checkpoint(path, identity, history, model, run.optimizer)
    model.eval()
    return history


def steps_of(data: Data, options: TrainOptions) -> int:
    """Steps in an epoch."""
    return math.ceil(len(data) / options.batch)


def rate_at(step: int, total: int, options: TrainOptions) -> float:
    """The learning rate of a step, 0 the first of `total`."""
    if options.rate == "cosine":
        return options.learning_rate * (1 + math.cos(math.pi * step / total)) / 2
    if options.rate == "steps":
        return options.learning_rate * 0.1 ** sum(step >= share * total for share in (0.5, 0.75))
    return options.learning_rate


def accuracy_of(model: nn.Module, data: Data, batch: int = 500) -> float:
    """The share of examples whose highest score is that of their label, in eval mode, on the model's device."""
    device = device_of(model)
    before = {module: module.training for module in model.modules()}
    right = count = 0
    try:
        model.eval()
        with torch.no_grad():
            for inputs, labels in data.batches(batch):
                right += int((logits_of(model(inputs.to(device))).argmax(1) == labels.to(device)).sum())
                count += len(labels)
    finally:
        for module, was in before.items():
            module.training = was
    return right / count


_LEFT_OUT = ("loss", "checkpoint", "progress")


class _Run:
    """The optimizer and one epoch of it."""

    def __init__(self, model: nn.Module, data: Data, options: TrainOptions, mask: Mask | None) -> None:
        if not len(data):
            raise PruneError("there is no example to train on; give at least one")
        self.model, self.data, self.options = model, data, options
        self.device, self.steps = device_of(model), steps_of(data, options)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        kept = mask.tensors if mask is not None else {}
        self.dead = [(parameters[name], ~one.to(parameters[name].device)) for name, one in kept.items()]
        learning = [one for one in model.parameters() if one.requires_grad]
        if not learning:
            raise PruneError("the network has no parameter that requires a gradient; nothing can be trained")
        self.optimizer = torch.optim.SGD(
            learning,
            options.learning_rate,
            momentum=options.momentum,
            nesterov=options.momentum > 0,
            weight_decay=options.weight_decay,
        )

    def epoch(self, begin: int, end: int) -> float:
        """The steps from begin to before end, of one epoch; their mean loss."""
        losses: list[Tensor] = []
        self.model.train()
        for step, (inputs, labels) in enumerate(self._batches(begin), start=begin):
            if step >= end:
                break
            if self.options.progress is not None:
                text = f"epoch {begin // self.steps + 1} of {self.options.epochs}"
                self.options.progress(step, self.options.epochs * self.steps, text)
            # A batch norm needs two.
            if len(labels) > 1 or self.steps == 1:
                losses.append(self._step(inputs.to(self.device), labels.to(self.device), step))
        loss = float(torch.stack(losses).mean()) if losses else 0.0
        if not math.isfinite(loss):
            raise PruneError(
                f"the training diverged at learning rate {self.options.learning_rate}; choose a smaller one, such as "
                f"{self.options.learning_rate / 10:g}"
            )
        return loss

    def _batches(self, begin: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Of the seed and the place alone, so that a resumed run draws what an uninterrupted one does.
        options, (epoch, skipped) = self.options, divmod(begin, self.steps)
        seed = options.seed * 1009 + epoch
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            for index, batch in enumerate(self.data.batches(options.batch, seed, augment=options.augment)):
                if index >= skipped:
                    yield batch

    def _step(self, inputs: Tensor, labels: Tensor, step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(step, self.options.epochs * self.steps, self.options)
        with fitting(inputs):
            loss = self.options.loss(self.model(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for weight, dead in self.dead:
                weight.masked_fill_(dead, 0)
        return loss.detach()
