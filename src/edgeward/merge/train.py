"""Training several models at once whose layers are tied, until all are good enough or it is clear that they won't be.

    outcome = train(tasks, {"a": 0.91, "b": 0.88}, JointOptions(epochs=5))
    outcome.met, outcome.accuracies

The loss is the sum over models of theirs, weighted by how far each is from its target (Padmanabhan et al., "Gemel",
NSDI 2023). A step takes a batch from every model's own loader; short ones are spread over the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from edgeward.errors import ConfigError
from edgeward.merge.norms import reestimate
from edgeward.merge.stopping import FIRST_LIFT, gap, hopeless, loss_weight, next_fraction
from edgeward.merge.task import Task
from edgeward.merge.tie import parameters

__all__ = ["JointOptions", "Limits", "Outcome", "refit_norms", "train"]


@dataclass(frozen=True)
class JointOptions:
    """Stochastic gradient descent on all models at once, at a constant learning rate as published.

    batch: examples of each model in a step. norm_batches: batches that batch-norm statistics are taken from after
    tying. clip: the largest norm of a step's gradient, to which it is scaled down: what many models together want of a
    layer just tied is much, and would throw some of them out for good. The published figures for large pretrained
    networks are a learning rate of 1e-5 and a batch of 2 in all; these defaults are for small networks.
    """

    epochs: int = 10
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 32
    norm_batches: int = 20
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 0, 10_000),
            ("learning_rate", 1e-9, 100),
            ("momentum", 0, 0.9999),
            ("weight_decay", 0, 1),
            ("batch", 2, 1 << 20),
            ("norm_batches", 1, 1 << 20),
            ("clip", 1e-9, 1e9),
            ("seed", 0, 2**31),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; choose from {low} to {high}")


@dataclass(frozen=True)
class Outcome:
    """Accuracies at the last validation, models that met their targets, epochs trained.

    stopped: given up early. diverged: the loss was no longer a finite number.
    """

    accuracies: Mapping[str, float]
    met: frozenset[str]
    epochs: float
    stopped: bool = False
    diverged: bool = False


@dataclass(frozen=True)
class Limits:
    """When to stop early. give_up: told which models are hopeless, at every validation; late: asked at every step."""

    give_up: Callable[[frozenset[str]], bool] = lambda _: False
    late: Callable[[], bool] = lambda: False


def train(
    tasks: Sequence[Task],
    targets: Mapping[str, float],
    options: JointOptions,
    limits: Limits | None = None,
) -> Outcome:
    """Train in place until every model that is not hopeless meets its target, on its validation data.

    targets: accuracy by model. The models end in eval mode.
    """
    try:
        return _trained(_Run(tasks, options, (limits or Limits()).late), targets, limits or Limits())
    finally:
        for task in tasks:
            task.module.eval()


def _trained(run: _Run, targets: Mapping[str, float], limits: Limits) -> Outcome:
    """As `train`, which puts the models into eval mode afterwards."""
    courses: dict[str, list[tuple[float, float]]] = {task.name: [] for task in run.tasks}
    failed: frozenset[str] = frozenset()
    step, last = 0, run.options.epochs * run.steps
    while True:
        for task in run.tasks:
            if task.name not in failed:
                courses[task.name].append((step / run.steps, task.metric(task.module, task.validation)))
        now = {name: course[-1][1] for name, course in courses.items()}
        below = {name for name in now if name not in failed and now[name] < targets[name]}
        failed |= {name for name in below if hopeless(courses[name], targets[name], run.options.epochs)}
        gaps = {name: gap(targets[name], now[name]) for name in below - failed}
        stopped = bool(gaps) and (limits.late() or limits.give_up(failed))
        if not gaps or step >= last or stopped:
            return Outcome(now, frozenset(now) - failed - gaps.keys(), step / run.steps, stopped)
        lifts = {name: _lift(courses[name], targets[name]) for name in gaps}
        upto = min(last, step + math.ceil(next_fraction(gaps, lifts) * run.steps))
        weights = {name: loss_weight(targets[name], now[name]) for name in now if name not in failed}
        if not run.advance(upto - step, weights):
            return Outcome(now, frozenset(), step / run.steps, stopped=True, diverged=True)
        step = upto


def _lift(course: Sequence[tuple[float, float]], target: float) -> float:
    return FIRST_LIFT if len(course) < 2 else (course[-1][1] - course[-2][1]) / target


class _Run:
    """The optimiser, and batches of all models side by side."""

    def __init__(self, tasks: Sequence[Task], options: JointOptions, late: Callable[[], bool]) -> None:
        self.tasks, self.options, self.late = tasks, options, late
        self.counts = {task.name: math.ceil(len(task.train) / options.batch) for task in tasks}
        self.steps = max(self.counts.values())
        self.learning = parameters(task.module for task in tasks)
        self.optimizer = torch.optim.SGD(
            self.learning,
            options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self.batches = self._steps()
        self.done = 0

    def advance(self, steps: int, weights: Mapping[str, float]) -> bool:
        """So many steps; models without a weight are left out. False when the loss is no finite number any more."""
        devices = [task.device for task in self.tasks if task.device.type == "cuda"]
        with torch.random.fork_rng(devices=devices):  # dropout must not depend on what ran before
            torch.manual_seed(self.options.seed * 1009 + self.done)
            for task in self.tasks:
                task.module.train()
            for batch in islice(self.batches, steps):
                if self.late():
                    break
                if not self._step([one for one in batch if one[0].name in weights], weights):
                    return False
        self.done += steps
        return True

    def _step(self, batch: list[tuple[Task, Tensor, object]], weights: Mapping[str, float]) -> bool:
        self.optimizer.zero_grad()
        for task, inputs, wanted in batch:
            device = task.device
            output = task.module(inputs.to(device))
            loss = weights[task.name] * task.loss(output, wanted.to(device) if isinstance(wanted, Tensor) else wanted)
            if not math.isfinite(float(loss.detach())):
                return False
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.learning, self.options.clip)
        self.optimizer.step()
        return True

    def _steps(self) -> Iterator[list[tuple[Task, Tensor, object]]]:
        """Without end: for every step the batches that fall into it."""
        epoch = 0
        while True:
            seed = self.options.seed * 1009 + epoch
            streams = {task.name: task.train.batches(self.options.batch, seed) for task in self.tasks}
            for step in range(self.steps):
                taken = []
                for task in self.tasks:
                    count = self.counts[task.name]
                    if (step + 1) * count // self.steps > step * count // self.steps:
                        found = next(streams[task.name], None)
                        if found is not None and len(found[0]) > 1:  # a batch norm needs two
                            taken.append((task, *found))
                yield taken
            epoch += 1


def refit_norms(task: Task, options: JointOptions) -> None:
    """Take the batch-norm statistics of a task's model anew from its own training data."""
    batches = task.train.batches(options.batch, options.seed)
    reestimate(task.module, (inputs.to(task.device) for inputs, _ in batches), options.norm_batches)
