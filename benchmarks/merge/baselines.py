"""Other ways to as few bytes: one network with a head for each question, and every model made smaller alone.

Bytes are those of parameters, as everywhere in this benchmark; each row names its share of the unmerged models'.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import row
from sharing import TARGET, Found, found, held_out, ratios
from torch import Tensor, nn
from torch.nn import functional
from workload import Learning, Workload

from edgeward.merge.search import SearchOptions, search
from edgeward.merge.task import Samples, Task
from edgeward.merge.tie import parameters, unique_bytes
from edgeward.prune.channels import Channels
from edgeward.prune.mask import Mask
from edgeward.prune.rectify import rectified, worth
from edgeward.prune.widths import surplus, uniform_widths

TUNED = ("high", "mixed")
"""Workloads whose models are small enough to be trained again, pruned and distilled."""

HEAT = 3.0
"""Temperature of distillation; half of the loss is the teacher's, half the labels'."""

Modules = Mapping[str, nn.Module]


def baselines(full: bool, name: str) -> list[dict[str, Any]]:
    """Least held-out accuracy of each way, relative to the unmerged models, at its bytes."""
    ours = found(name, full)
    work, alone = ours.workload, {task.name: task.module for task in ours.workload.fresh()}
    share = 1 - ours.saved / ours.total
    bits = min(max(math.floor(32 * share), 2), 15)
    merged = f"merged: {min(ratios(ours.before, held_out(work, ours.modules))):.3f} at {share:.3f} of the bytes"
    line = functools.partial(_line, ours, merged)
    joined = multihead(work)
    rows = [
        line("multihead", "one network with a head for each question, trained on the pictures of all, epochs and optimiser as the unmerged", joined, _bytes(joined),
             note="needs the data of all models in one place, and training all of them again for a change of one"),
        *(line(kind, f"each model alone, {what}", *narrowed(alone, size)) for kind, what, size in (
            ("fp16", "weights as 16-bit floats", 16), ("int8", "weights rounded to 8 bits, a scale for each output channel", 8),
            ("rounded", f"weights rounded to {bits} bits, so that all take no more than the merged ones", bits))),
    ]  # fmt: skip
    if name in TUNED:
        rows += _smaller_rows(work, alone, share, line)
    for kind, what, size in (("fp16", "16-bit floats", 16), ("int8", "8 bits", 8)):
        modules, taken = narrowed(ours.modules, size)
        rows += [
            line(f"merged_{kind}", f"the merged models, weights then rounded to {what}", modules, taken),
            row(f"{name}.merged_{kind}.saved", f"1 - bytes of the merged models, rounded to {what} / of the unmerged models", baseline=f"merged: {1 - share:.3f}",
                ours=1 - taken / ours.total, unit="fraction"),
        ]  # fmt: skip
    return rows


def _smaller_rows(
    work: Workload, alone: Modules, share: float, line: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Pruned and taught networks at the bytes of the merged ones, and what merging adds to the pruned."""
    pruned = smaller(work, alone, share)
    learnt = {task.name: _tuned(pruned[task.name], task, work.learning, None) for task in work.tasks}
    taught = {task.name: _tuned(pruned[task.name], task, work.learning, alone[task.name]) for task in work.tasks}
    rounded, taken = narrowed(learnt, 8)
    seconds = work.search.seconds / 2
    both = merged_again(work, learnt, seconds)
    return [
        line("pruned", "each model alone, the same share of every width, filters of least magnitude gone, trained again as the unmerged", learnt, _bytes(learnt)),
        line("distilled", "the same smaller networks, taught by the unmerged ones' answers as well as by labels", taught, _bytes(taught)),
        line("pruned_int8", "the pruned models, weights then rounded to 8 bits", rounded, taken),
        line("pruned_merged", f"the pruned models, then merged for {seconds:.0f} s", both, _bytes(both), note="the search's target is of the pruned models' own accuracy"),
        line("pruned_merged_int8", "those, weights then rounded to 8 bits", *narrowed(both, 8)),
    ]  # fmt: skip


def merged_again(work: Workload, modules: Modules, seconds: float) -> Modules:
    """What the search makes of other networks for the same questions."""
    tasks = [
        replace(task, network=replace(task.network, module=copy.deepcopy(modules[task.name]))) for task in work.tasks
    ]
    with tempfile.TemporaryDirectory() as place:
        options = SearchOptions(target=TARGET, seconds=seconds, joint=work.search.joint)
        for _ in search(tasks, Path(place) / "merged", options):
            pass
    return {task.name: task.module for task in tasks}


def _line(
    ours: Found, merged: str, kind: str, what: str, modules: Modules, taken: float, note: str = ""
) -> dict[str, Any]:
    every = ratios(ours.before, held_out(ours.workload, modules))
    least = f"least held-out accuracy / of the same model unmerged: {what}"
    told = f"{taken / ours.total:.3f} of the bytes" + (f"; {note}" if note else "")
    return row(
        f"{ours.workload.name}.{kind}.accuracy", least,
        baseline=merged, ours=min(every), unit="x", spread=[min(every), max(every)], note=told,
    )  # fmt: skip


def _bytes(modules: Modules) -> float:
    return float(unique_bytes(modules.values()))


def multihead(work: Workload) -> Modules:
    """One network for all questions: the largest of the untrained ones without its last layer, which each has alone."""
    starts = {task.name: work.learning.start(task.name) for task in work.tasks}
    largest = max(starts.values(), key=lambda one: unique_bytes([one]))
    assert isinstance(largest, nn.Sequential)
    trunk, last = largest[:-1], largest[-1]
    assert isinstance(last, nn.Linear)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = {name: nn.Linear(last.in_features, one[-1].out_features) for name, one in starts.items()}  # type: ignore[index]
        modules = {name: nn.Sequential(trunk, head) for name, head in heads.items()}

        def loss(batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
            # Together, so that batch norms see all cameras as they will when they serve.
            features = trunk(torch.cat([inputs for inputs, _ in batches])).split([len(one) for _, one in batches])
            asked = zip(heads.values(), features, batches, strict=True)
            return torch.stack(
                [functional.cross_entropy(head(seen), wanted) for head, seen, (_, wanted) in asked]
            ).sum()

        _fit(modules.values(), [task.train for task in work.tasks], work.learning, loss)
    return modules


def narrowed(modules: Modules, bits: int) -> tuple[Modules, float]:
    """Copies whose layers' weights are rounded, shared ones once; and the bytes that this would take.

    16: every parameter as a half-precision float. Fewer: weights symmetrically to whole steps of a float32 scale for
    each output channel, packed; biases and batch norms stay float32. What is computed stays float32.
    """
    copies = copy.deepcopy(dict(modules))
    taken = 0.0
    with torch.no_grad():
        for one in {id(one): one for module in copies.values() for one in module.parameters()}.values():
            if bits == 16:
                one.copy_(one.half().float())
                taken += 2 * one.numel()
            elif one.dim() > 1:
                steps = 2 ** (bits - 1) - 1
                scale = one.flatten(1).abs().amax(1).clamp(min=1e-12).view(-1, *[1] * (one.dim() - 1)) / steps
                one.copy_((one / scale).round() * scale)
                taken += one.numel() * bits / 8 + 4 * len(one)
            else:
                taken += one.nbytes
    return copies, taken


def smaller(work: Workload, modules: Modules, share: float) -> Modules:
    """Each model by itself narrowed by one factor to at most so large a share, its filters of largest magnitude kept."""
    examples = {task.name: torch.zeros(1, *(task.network.sample_shape or ())) for task in work.tasks}
    channels = {name: Channels.of(modules[name], example) for name, example in examples.items()}
    budgets = {name: math.floor(share * sum(one.numel() for one in modules[name].parameters())) for name in examples}
    factor = min(
        uniform_widths(modules[name], example, budgets[name], channels[name]).factor
        for name, example in examples.items()
    )
    found = {}
    for name, example in examples.items():
        widths = {one.name: one.size - len(surplus(one, factor)) for one in channels[name].groups if one.prunable}
        ranked = [path for path, one in modules[name].named_parameters() if one.dim() > 1]
        values = worth(modules[name], Mask.ones(modules[name], ranked))
        found[name] = rectified(modules[name], example, channels[name], widths, values).module
    return found


def _tuned(module: nn.Module, task: Task, learning: Learning, teacher: nn.Module | None) -> nn.Module:
    """A copy trained on the model's own pictures, with the answers of a teacher if there is one."""
    student = copy.deepcopy(module)

    def loss(batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        inputs, wanted = batches[0]
        scores = student(inputs)
        own = functional.cross_entropy(scores, wanted)
        if teacher is None:
            return own
        with torch.no_grad():
            answers = (teacher(inputs) / HEAT).softmax(1)
        taught = functional.kl_div((scores / HEAT).log_softmax(1), answers, reduction="batchmean")
        return (own + HEAT**2 * taught) / 2

    _fit([student], [task.train], learning, loss)
    return student


def _fit(modules: Any, data: Sequence[Any], learning: Learning, loss: Any) -> None:
    """Train on batches of all the data side by side; a shorter one is gone through again."""
    modules = list(modules)
    steps = learning.epochs * max(-(-len(one) // learning.batch) for one in data)
    optimizer, rates = learning.optimizer(parameters(modules), steps)
    for module in modules:
        module.train()
    for _, *batches in zip(range(steps), *(_endless(one, learning.batch) for one in data), strict=False):
        optimizer.zero_grad()
        loss(batches).backward()
        optimizer.step()
        rates.step()
    for module in modules:
        module.eval()


def _endless(data: Samples, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count():
        yield from (one for one in data.batches(size, epoch) if len(one[1]) > 1)  # a batch norm needs two
