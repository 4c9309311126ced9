"""The search for layers that several models can share while each stays accurate.

    for step in search(tasks, Path("merged"), SearchOptions(target=0.95, seconds=600)):
        print(step.seconds, step.group, step.outcome, step.saved_bytes)
    load_all(Path("merged"))

After every step the folder holds models that can be shipped; saved bytes never fall. Stopped at any moment, the same
call goes on from the folder. Padmanabhan et al., "Gemel", NSDI 2023, with another gate: whoever shares anything with a
model of the trial, directly or through others, is trained and judged too, and before a result counts all models are
judged once more, from the written files, on data that took no part before.
"""

from __future__ import annotations

import copy
import functools
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from edgeward.errors import ConfigError, PlanError
from edgeward.merge.align import align
from edgeward.merge.deltas import add_delta
from edgeward.merge.groups import Group, Instance, groups
from edgeward.merge.manifest import read_manifest, write_manifest
from edgeward.merge.potential import potential
from edgeward.merge.progress import SEARCH_FILE, Progress, identity_of, read_progress, resume
from edgeward.merge.sharing import Sharing, closure
from edgeward.merge.store import Merged, check_place, load_all, publish, save_merged
from edgeward.merge.task import Task, check_tasks
from edgeward.merge.tie import blend, check_tied, take, tie, unique_bytes
from edgeward.merge.train import JointOptions, Limits, Outcome, refit_norms, train
from edgeward.merge.trials import Trial, Verdict, begin, following, good, worthwhile
from edgeward.profile.file import replace_text
from edgeward.units import format_bytes
from edgeward.zoo.network import example_of

__all__ = ["SearchOptions", "Step", "search"]

CONFIRMED, FAILED, DIVERGED, REFUSED, TIME = "confirmed", "failed", "diverged", "refused", "time"


@dataclass(frozen=True)
class SearchOptions:
    """target: the share of its unmerged accuracy that every model keeps. seconds: when to stop, over all resumptions.

    aligned: bring channels into the order of the shared layer's before tying, where that changes nothing else.
    rank: of private corrections beside shared layers, 0 for none. private_bias: share weights only.
    """

    target: float = 0.95
    seconds: float = math.inf
    aligned: bool = False
    rank: int = 0
    private_bias: bool = False
    joint: JointOptions = field(default_factory=JointOptions)

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise ConfigError(f"target {self.target} is out of range; give a share above 0 and at most 1, such as 0.95")
        if not self.seconds > 0:
            raise ConfigError(f"{self.seconds} seconds are no time; give more than 0")
        if not 0 <= self.rank <= 1 << 16:
            raise ConfigError(f"rank {self.rank} is out of range; give 0 (no corrections) to {1 << 16}")


@dataclass(frozen=True)
class Step:
    """One attempt.

    seconds: spent so far, resumptions added up. groups: that were tied, the heaviest first. outcome: "confirmed";
    "failed" on validation data; "diverged", for which the learning rate is too high; "refused" by the last gate; "time"
    when it ran out. accuracies: of all models, from the written files, on test data, if the gate was reached; else of
    those trained, on validation data.
    """

    seconds: float
    groups: tuple[Group, ...]
    outcome: str
    saved_bytes: int
    accuracies: Mapping[str, float]

    @property
    def group(self) -> Group:
        """The heaviest."""
        return self.groups[0]


def search(
    tasks: Sequence[Task],
    folder: Path,
    options: SearchOptions | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Step]:
    """Share as much as the target allows; the tasks' modules are changed in place and end as the folder holds them.

    folder: where the models are written, and where the search goes on if it began there. Raises PlanError when the
    models have nothing in common or data is missing, StoreError when the folder holds something else.
    """
    checked = tuple(tasks)
    check_tasks(checked)
    return _Search(checked, folder, options or SearchOptions(), clock).steps()


class _Search:
    """The models with what was found, and the hands that try."""

    def __init__(
        self, tasks: tuple[Task, ...], folder: Path, options: SearchOptions, clock: Callable[[], float]
    ) -> None:
        self.tasks, self.folder, self.options, self.clock = {task.name: task for task in tasks}, folder, options, clock
        self.models = {task.name: task.module for task in tasks}
        self.began = clock()
        self.groups = groups(self.models, private_bias=options.private_bias)
        if not self.groups:
            could = potential(self.models, private_bias=options.private_bias)
            raise PlanError(
                f"{', '.join(self.models)} have no layer in common: sharing could save 0 of "
                f"{format_bytes(could.bytes_total)}; merge models of one family"
            )
        self.total = unique_bytes(self.models.values())
        for module in self.models.values():
            module.eval()
        check_place(folder)
        identity = identity_of(tasks, options)
        known = read_progress(folder, identity, self.groups)
        if known is not None:
            self.progress = known
            resume(folder, self.models, known)
        else:
            base = {task.name: (_measured(task, "validation"), _measured(task, "test")) for task in tasks}
            self.progress = Progress(identity, base, trial=begin(self.groups, 0))
            save_merged(folder, self._stored(), {SEARCH_FILE: self.progress.to_json()})
        self.before = self.progress.seconds

    def steps(self) -> Iterator[Step]:
        """Attempts until nothing is left or the time is over."""
        while self.progress.trial is not None and self.seconds < self.options.seconds:
            yield self._attempt()

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self.before + self.clock() - self.began

    def _attempt(self) -> Step:
        """Try what is next; whatever does not pass leaves the models as they were, bit for bit."""
        progress = self.progress
        trial = progress.trial
        assert trial is not None
        tying = trial.of(self.groups)
        sharing = functools.reduce(Sharing.plus, tying, progress.confirmed)
        involved = closure(sharing, frozenset().union(*(group.models for group in tying)))
        before = take({name: self.models[name] for name in involved})
        try:
            outcome = self._trained(trial, tying, involved)
            check_tied(self.models, sharing)
            targets, reached, candidate = self._targets(0), outcome.accuracies, None
            failed = involved - outcome.met
            if not failed:
                candidate, reached = self._candidate()
                targets = self._targets(1)
                failed = frozenset(name for name, one in reached.items() if one < targets[name])
        except BaseException:
            before.restore()
            shutil.rmtree(self._place, ignore_errors=True)
            raise
        if failed:
            before.restore()
            shutil.rmtree(self._place, ignore_errors=True)
        if failed and candidate is None and self.seconds >= self.options.seconds:
            self._keep(None)
            return self._step(tying, TIME, reached)
        closeness = {name: one / targets[name] for name, one in reached.items()}
        verdict = Verdict(not failed, good(trial, progress.confirmed, failed), closeness)
        self.progress = replace(
            progress,
            trial=following(self.groups, trial, verdict),
            confirmed=progress.confirmed if failed else sharing,
            attempts=progress.attempts + 1,
        )
        self._keep(None if failed else candidate)
        missed = DIVERGED if outcome.diverged else FAILED if candidate is None else REFUSED
        return self._step(tying, missed if failed else CONFIRMED, reached)

    def _trained(self, trial: Trial, tying: Sequence[Group], involved: frozenset[str]) -> Outcome:
        """Tie the trial and train everyone whom that touches."""
        for name in frozenset().union(*(self._tied(group, trial.copy) for group in tying)):
            refit_norms(self.tasks[name], self.options.joint)
        confirmed, attempt = self.progress.confirmed, self.progress.attempts
        limits = Limits(
            lambda failed: not worthwhile(trial, confirmed, failed), lambda: self.seconds >= self.options.seconds
        )
        # Its own seed for every attempt, whether the search was interrupted before it or not.
        joint = replace(self.options.joint, seed=(self.options.joint.seed + 7919 * attempt) % 2**31)
        return train([self.tasks[name] for name in sorted(involved)], self._targets(0), joint, limits)

    def _tied(self, group: Group, shared: Sequence[Instance]) -> frozenset[str]:
        """Tie the layers of a group; the models whose weights changed.

        To the copy that some share; else to the mean if they are alike; else to that of the least accurate unmerged.
        """
        base = self.progress.base
        source = shared[0] if shared else min(group.instances, key=lambda one: (base[one.model][0], one))
        joining = [one for one in group.instances if one not in shared and one != source]
        for one in joining:
            if self.options.aligned:
                task = self.tasks[one.model]
                example = example_of(task.network, None, 2).to(task.device)
                align(task.module, one.layer, self._weight(source), example, self._shared_by(one.model))
            if self.options.rank:
                _correct(self.models[one.model], one.layer, self.options.rank, self._weight(source))
        moved = not shared and not self.options.rank and blend(self.models, group, source)
        tie(self.models, group, source)
        return frozenset(one.model for one in (group.instances if moved else joining))

    def _shared_by(self, model: str) -> frozenset[str]:
        """Layers of a model that it shares already."""
        held = (one for group in self.progress.confirmed.groups for one in group.instances)
        return frozenset(one.layer for one in held if one.model == model)

    def _weight(self, one: Instance) -> torch.Tensor:
        weight = self.models[one.model].get_submodule(one.layer).weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def _targets(self, part: int) -> dict[str, float]:
        """Accuracies to reach: on validation data (0) or test data (1)."""
        return {name: self.options.target * base[part] for name, base in self.progress.base.items()}

    def _candidate(self) -> tuple[Path, dict[str, float]]:
        """The models as written beside the folder, and what they reach from there."""
        place = self._place
        shutil.rmtree(place, ignore_errors=True)
        save_merged(place, self._stored())
        factories = {name: functools.partial(copy.deepcopy, module) for name, module in self.models.items()}
        reached = {}
        for name, module in load_all(place, factories).items():
            task = self.tasks[name]
            reached[name] = task.metric(module.to(task.device), task.test)
            write_manifest(place, replace(read_manifest(place, name), accuracy=reached[name]))
        return place, reached

    @property
    def _place(self) -> Path:
        """Where models lie until they have passed the last gate."""
        return self.folder.with_name(f".{self.folder.name}.candidate")

    def _stored(self) -> list[Merged]:
        base = self.progress.base
        return [
            Merged(one.network, base[name][1], base[name][1], self.options.target) for name, one in self.tasks.items()
        ]

    def _keep(self, candidate: Path | None) -> None:
        """Write the progress: with the new models if there are any, else beside those that lie there."""
        self.progress = replace(self.progress, seconds=self.seconds)
        text = self.progress.to_json()
        if candidate is None:
            replace_text(self.folder / SEARCH_FILE, text)
        else:
            replace_text(candidate / SEARCH_FILE, text)
            publish(candidate, self.folder)

    def _step(self, tying: tuple[Group, ...], outcome: str, accuracies: Mapping[str, float]) -> Step:
        saved = self.total - unique_bytes(self.models.values())
        return Step(self.seconds, tying, outcome, saved, dict(accuracies))


def _correct(module: nn.Module, path: str, rank: int, shared: torch.Tensor) -> None:
    """Let a layer that will use `shared` start as close to its own weight as a correction of this rank allows."""
    layer = module.get_submodule(path)
    own = layer.weight
    assert isinstance(own, nn.Parameter)
    layer.weight = nn.Parameter(shared.detach(), own.requires_grad)  # for the moment: it is tied afterwards
    if not add_delta(module, path, rank, own):
        layer.weight = own


def _measured(task: Task, part: str) -> float:
    """A task's own accuracy before merging."""
    found = task.metric(task.module, getattr(task, part))
    if not found > 0:
        raise PlanError(
            f"{task.name} reaches {found} on its {part} data, of which no share can be kept; train it first"
        )
    return found
