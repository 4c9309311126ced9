"""From a network and goals to the smaller network that meets them, tuned, with all that was measured of it.

shrunk = shrink(model, example, [parse_goal("params<=0.5x")], ShrinkOptions(method="snip"), Sets(train, test))
shrunk.module, shrunk.edits, shrunk.report()
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.graph.onnx import export_module
from edgeward.profile.variant import LatencyFigure
from edgeward.prune.criteria import parse_criterion
from edgeward.prune.figures import Figures, figures_of
from edgeward.prune.goal import Goal, format_figure
from edgeward.prune.latency import Speedup, Timing
from edgeward.prune.makers import RECONVENE, Maker, Sets, ShrinkOptions, maker_of
from edgeward.prune.search import Search, search
from edgeward.prune.sites import Site
from edgeward.vision.classification import Drop, correct, drop_between, logits_of
from edgeward.zoo.pruned import Edits

__all__ = ["Shrunk", "shrink"]

_CORRECTIONS = 8
"""How often a little more goes when longer timing does not confirm a latency."""


@dataclass(frozen=True)
class Shrunk:
    """The smaller network, and the dense one beside it.

    latency: by site the figures of both networks and the speed-up between them. right: by picture of the test set
    whether the dense and the smaller network are right. largest: logit difference of an exact conversion.
    """

    module: nn.Module
    edits: Edits
    share: float
    before: Figures
    after: Figures
    latency: Mapping[str, tuple[LatencyFigure, LatencyFigure, Speedup]]
    how: Mapping[str, str]
    right: tuple[Tensor, Tensor] | None = None
    notes: tuple[str, ...] = ()

    @property
    def accuracies(self) -> tuple[float, float] | None:
        """Of the dense and of the smaller network."""
        if self.right is None:
            return None
        return float(self.right[0].double().mean()), float(self.right[1].double().mean())

    @property
    def drop(self) -> Drop | None:
        """The accuracy lost, with its standard error."""
        return None if self.right is None else drop_between(*self.right)

    def report(self) -> dict[str, Any]:
        """All of it as plain values."""
        counted = ("parameters", "macs", "size", "memory")
        record: dict[str, Any] = {
            "dense": {name: getattr(self.before, name) for name in counted},
            "pruned": {name: getattr(self.after, name) for name in counted},
            "share_removed": self.share,
            "latency": {
                site or "here": {
                    "how": self.how[site],
                    "dense": old.model_dump(),
                    "pruned": new.model_dump(),
                    "speedup": speedup.ratio if speedup.certain else None,
                    "speedup_interval": [speedup.low, speedup.high],
                    "noise": speedup.noise,
                }
                for site, (old, new, speedup) in self.latency.items()
            },
            "notes": list(self.notes),
        }
        if self.accuracies is not None and self.drop is not None:
            record["accuracy"] = {
                "dense": self.accuracies[0],
                "pruned": self.accuracies[1],
                "drop_error": self.drop.error,
                "pictures": len(self.right[0]) if self.right else 0,
            }
        return record


def shrink(
    model: nn.Module, example: Tensor, goals: Sequence[Goal], options: ShrinkOptions, sets: Sets | None = None
) -> Shrunk:
    """The least pruned network that meets all goals, tuned where there are pictures and epochs.

    example: one input, batch of 1. `model` stays as it is. Raises PruneError when a goal cannot be met, when the method
    needs pictures and there are none, or when a goal's device has no site.
    """
    _check(goals, options, sets)
    named = {goal.device: options.sites[goal.device] for goal in goals if goal.metric == "latency"}
    sites = named or dict(list(options.sites.items())[:1])
    dense = copy.deepcopy(model).eval()
    if sets is not None:
        _check_labels(dense, example, sets)
    maker = maker_of(dense, example, options, sets)
    clock = _Clock(sites, export_module(dense, example), example, options.rounds)
    looking = Search(most=maker.most, progress=options.progress)
    share = search(maker.candidate, goals, (dense, example), lambda one, site: clock.seconds(one, site), looking).share
    if named:
        share = _surely(share, maker, goals, clock)
    removed = maker.finished(share)
    latency = {}
    for name in sites:
        timing = clock.time(removed.module, name, 4)
        latency[name] = (timing.figure("dense"), timing.figure("small"), timing.speedup("dense", "small"))
    before, after = figures_of(dense, example), figures_of(removed.module, example)
    for goal in goals:
        values = [figures[goal.metric] for figures in (after, before)] if goal.metric != "latency" else []
        value, whole = values or [figure.median for figure in latency[goal.device][1::-1]]
        if not goal.met(value, whole):
            reached = format_figure(goal.metric, value)
            maker.notes.append(
                f"{goal} is NOT met: the last timing gave {reached}; free the machine, or raise --rounds"
            )
    right = None if sets is None else (correct(dense, sets.test), correct(removed.module, sets.test))
    how = {name: site.how for name, site in sites.items()}
    return Shrunk(
        removed.module.eval(), removed.edits, share, before, after, latency, how, right,
        tuple(maker.notes),
    )  # fmt: skip


def _check_labels(model: nn.Module, example: Tensor, sets: Sets) -> None:
    with torch.no_grad():
        outputs = logits_of(model(example)).shape[1]
    most = max(int(part.labels.max()) for part in (sets.train, sets.test))
    if most >= outputs:
        raise PruneError(f"the pictures have labels up to {most}, the network tells {outputs} classes apart")


class _Clock:
    """Latencies beside the dense network's, so that what else the machine does weighs on both."""

    def __init__(self, sites: Mapping[str, Site], dense: bytes, example: Tensor, rounds: int) -> None:
        self.sites, self.dense, self.example, self.rounds = sites, dense, example, rounds
        self.taken: dict[str, list[float]] = {}

    def time(self, module: nn.Module, site: str, times: int = 1) -> Timing:
        networks = {"dense": self.dense, "small": export_module(module, self.example)}
        return self.sites[site].time(networks, self.example.shape, times * self.rounds)

    def seconds(self, module: nn.Module, site: str, times: int = 1) -> float:
        """Of the dense network, divided by the speed-up: medians of pairs vary less than medians."""
        timing = self.time(module, site, times)
        self.taken.setdefault(site, []).extend(timing.seconds["dense"])
        return self.whole(site) / timing.speedup("dense", "small").ratio

    def whole(self, site: str) -> float:
        """Median seconds of the dense network over all that was timed: the machine may become slower meanwhile."""
        return statistics.median(self.taken[site])


def _surely(share: float, maker: Maker, goals: Sequence[Goal], clock: _Clock) -> float:
    """This share, or a little more when longer timing shows that a latency is not reached after all."""
    timed = [goal for goal in goals if goal.metric == "latency"]
    for _ in range(_CORRECTIONS):
        module = maker.candidate(share).module
        if all(goal.met(clock.seconds(module, goal.device, 4), clock.whole(goal.device)) for goal in timed):
            return share
        share += (maker.most - share) / 20
    raise PruneError(f"{timed[0]} is not reached reliably: timings vary too much; free the machine, or raise --rounds")


def _check(goals: Sequence[Goal], options: ShrinkOptions, sets: Sets | None) -> None:
    if not goals:
        raise PruneError('no target is given; give at least one, such as "params<=0.5x"')
    for goal in goals:
        if goal.metric == "latency" and goal.device not in options.sites:
            raise PruneError(
                f"{goal}: nothing is known of {goal.device!r}; give its profile (--profile), or an emulated fleet "
                "(--fleet) that has it"
            )
    if sets is None and options.method != RECONVENE and parse_criterion(options.method).passes:
        raise PruneError(f"method {options.method} scores pictures; give them (--data), or take magnitude or synflow")
    if sets is None and options.tuning.epochs:
        raise PruneError(f"{options.tuning.epochs} epochs of tuning need pictures; give them (--data)")
