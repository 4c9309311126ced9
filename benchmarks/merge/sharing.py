"""How much the search saves, at which accuracy, beside a shared stem and sharing everything without training."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import row
from torch import nn
from workload import Workload, workload

from edgeward.merge.groups import Group, Instance, groups
from edgeward.merge.potential import potential
from edgeward.merge.search import SearchOptions, Step, search
from edgeward.merge.signature import layers
from edgeward.merge.store import load_all
from edgeward.merge.task import Task, top1
from edgeward.merge.tie import take, tie, unique_bytes
from edgeward.merge.train import JointOptions, Limits, refit_norms, train

PROMISED, TARGET = 0.95, 0.96
"""What every model keeps of its accuracy; and what the search is told, since its data are a sample."""

MARGIN = f"validation and gate took part in the search, whose target is {TARGET}; the held-out pictures did not"


@dataclass(frozen=True, eq=False)
class Found:
    """A finished search. total: bytes of all parameters before; place: what keeps its folder."""

    workload: Workload
    steps: tuple[Step, ...]
    seconds: float
    total: int
    before: Mapping[str, float]
    modules: Mapping[str, nn.Module]
    place: tempfile.TemporaryDirectory[str]

    @property
    def folder(self) -> Path:
        """The merged models."""
        return Path(self.place.name) / "merged"

    @property
    def saved(self) -> int:
        """Bytes that the shipped files save, parameters only."""
        return self.total - unique_bytes(self.modules.values())


@functools.cache
def found(name: str, full: bool) -> Found:
    """The search on one workload, and its models loaded from the files."""
    work = workload(name, full)
    tasks = work.fresh()
    before = held_out(work, {task.name: task.module for task in tasks})
    total = unique_bytes(task.module for task in tasks)
    place = tempfile.TemporaryDirectory(prefix="merge-bench-")
    folder = Path(place.name) / "merged"
    options = SearchOptions(target=TARGET, seconds=work.search.seconds, joint=work.search.joint)
    begin = time.perf_counter()
    steps = tuple(search(tasks, folder, options))
    seconds = time.perf_counter() - begin
    return Found(work, steps, seconds, total, before, load_all(folder, work.factories()), place)


def sharing(full: bool, name: str, bar: float | None) -> list[dict[str, Any]]:
    """All rows of one workload. bar: of the share that is saved."""
    ours = found(name, full)
    tasks, total = ours.workload.fresh(), ours.total
    could = potential({task.name: task.module for task in tasks})
    least = ratios(ours.before, held_out(ours.workload, ours.modules))
    stem_seconds, stem_modules = stem(tasks, ours.seconds, ours.workload.search.joint)
    stem_saved = 1 - unique_bytes(stem_modules.values()) / total
    stem_least = ratios(ours.before, held_out(ours.workload, stem_modules))
    all_modules = share_all(ours.workload.fresh(), ours.workload.search.joint)
    all_least = ratios(ours.before, held_out(ours.workload, all_modules))
    saved = ours.saved / total
    what = f"six cameras, {total / 1e6:.1f} MB of parameters ({name})"
    usual = ours.workload.most_frequent()
    own = ", ".join(f"{one} {value:.3f} ({usual[one]:.2f})" for one, value in ours.before.items())
    about = f"; {ours.workload.about}" if ours.workload.about else ""
    tries = f"{len(ours.steps)} attempts, {sum(step.outcome == 'confirmed' for step in ours.steps)} confirmed"
    rows = [
        row(f"{name}.potential", f"bytes saved if all layers of equal form were shared / all parameters; {what}",
            baseline="none", ours=could.share, unit="fraction", note=f"unmerged held-out accuracies (always the most frequent answer): {own}{about}"),
        row(f"{name}.saved", f"1 - bytes of the unique parameters of the shipped files / of the unmerged models; {what}",
            baseline=f"stem: {stem_saved:.3f}", ours=saved, unit="fraction", bar=f">= {bar}" if bar else "", note=tries),
        row(f"{name}.accuracy", "least held-out accuracy of a merged model, from the shipped files / of the same model unmerged",
            baseline="unmerged", ours=min(least), unit="x", bar=f">= {PROMISED}", spread=[min(least), max(least)], note=MARGIN),
        row(f"{name}.over_stem", "share saved by the search - by a shared stem",
            baseline=f"stem: {stem_saved:.3f}", ours=saved - stem_saved, unit="fraction", bar=">= 0.01" if name == "mixed" else "",
            note="stem: each model takes the longest frozen prefix of another's layers with which it still meets the same target on the same data; batch norms stay its own, "
            f"in {stem_seconds:.0f} s, at most the search's; its least held-out accuracy is {min(stem_least):.3f} of the unmerged"),
        row(f"{name}.share_all.accuracy", "least held-out accuracy when all layers of equal form are shared without training, batch-norm statistics taken anew / unmerged",
            baseline="unmerged", ours=min(all_least), unit="x", spread=[min(all_least), max(all_least)],
            note=f"saves {1 - unique_bytes(all_modules.values()) / total:.3f}"),
        row(f"{name}.seconds", "wall seconds of the search, gates and files included, one thread", baseline=f"budget: {ours.workload.search.seconds:.0f} s",
            ours=ours.seconds, unit="s", note=ours.workload.search.note),
    ]  # fmt: skip
    return rows + [
        row(f"{name}.saved_after_{percent}", f"share saved after {percent} % of those seconds",
            baseline="none", ours=saved_at(ours.steps, percent / 100 * ours.seconds) / total, unit="fraction")
        for percent in (25, 50, 100)
    ]  # fmt: skip


def held_out(work: Workload, modules: Mapping[str, nn.Module]) -> dict[str, float]:
    """Accuracy of every model on pictures that nothing else uses."""
    return {name: top1(module, work.held_out[name]) for name, module in modules.items()}


def ratios(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    """After / before, of every model."""
    return [after[name] / before[name] for name in before]


def saved_at(steps: Sequence[Step], seconds: float) -> int:
    """Bytes saved by then."""
    return max((step.saved_bytes for step in steps if step.seconds <= seconds), default=0)


def share_all(tasks: Sequence[Task], joint: JointOptions) -> dict[str, nn.Module]:
    """Everything of equal form tied to the first model's weights, nothing trained."""
    modules = {task.name: task.module for task in tasks}
    for group in groups(modules):
        tie(modules, group, group.instances[0])
    for task in tasks:
        refit_norms(task, joint)
    return modules


def stem(tasks: Sequence[Task], seconds: float, joint: JointOptions) -> tuple[float, dict[str, nn.Module]]:
    """Jiang et al., "Mainstream" (USENIX ATC 2018), in short: frozen first layers of another model, the rest retrained.

    Model by model: of those before it the one with most bytes of equal first layers lends them; how many is bisected.
    """
    begin = time.perf_counter()
    modules = {task.name: task.module for task in tasks}
    for index, task in enumerate(tasks[1:], start=1):
        lender, prefix = max(
            ((other.name, common(modules[other.name], task.module)) for other in tasks[:index]),
            key=lambda one: sum(group.bytes for group in one[1]),
        )
        low, high = 0, len(prefix)
        wanted = {part: TARGET * top1(task.module, getattr(task, part)) for part in ("validation", "test")}
        original = take({task.name: task.module})
        kept = None
        while low < high and time.perf_counter() - begin < seconds:
            middle = (low + high + 1) // 2
            original.restore()
            borrow(modules, lender, task.name, prefix[:middle])
            refit_norms(task, joint)
            limits = Limits(late=lambda: time.perf_counter() - begin >= seconds)
            met = train([task], {task.name: wanted["validation"]}, joint, limits).met
            if met and top1(task.module, task.test) >= wanted["test"]:
                low, kept = middle, take({task.name: task.module})
            else:
                high = middle - 1
        (kept or original).restore()
    return time.perf_counter() - begin, modules


def common(lender: nn.Module, borrower: nn.Module) -> list[Group]:
    """Their first layers, as long as these are of equal form."""
    pairs = zip(layers(lender).items(), layers(borrower).items(), strict=False)
    found = []
    for (theirs, form), (mine, own) in pairs:
        if form != own:
            break
        found.append(Group(form, (Instance("lender", theirs), Instance("borrower", mine))))
    return found


def borrow(modules: Mapping[str, nn.Module], lender: str, borrower: str, prefix: Sequence[Group]) -> None:
    """Tie a prefix; the shared weights do not learn any more."""
    pair = {"lender": modules[lender], "borrower": modules[borrower]}
    for group in prefix:
        tie(pair, group, group.instances[0])
        for name in group.signature.tensors:
            getattr(pair["lender"].get_submodule(group.instances[0].layer), name).requires_grad_(False)
