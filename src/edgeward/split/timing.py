"""What a request took, stage by stage and hop by hop, from the notes that hosts left on it.

    steps = steps_of(trace, plan, sent=0.0, answered=0.21, offsets={"edge": 3.1})
    [f"{step.name} {step.seconds}" for step in steps]

Hosts note times of their own clocks; `offsets` bring them to ours. What cannot have been, because clocks were set or
drift, is taken as no time at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from edgeward.plan.plan import Plan

__all__ = ["Step", "StepFigures", "figures", "steps_of"]


@dataclass(frozen=True)
class Step:
    """One part of a request's way. Times in seconds on our clock; bytes that crossed, of a hop.

    begun: when a stage's computing began, or a hop's first byte was handed over. pack, unpack: of a hop.
    """

    kind: Literal["stage", "hop"]
    name: str
    begun: float
    seconds: float
    bytes: int = 0
    pack: float = 0.0
    unpack: float = 0.0


def steps_of(
    trace: Sequence[Mapping[str, Any]], plan: Plan, source: str, *, sent: float, offsets: Mapping[str, float]
) -> tuple[Step, ...]:
    """Stages and hops of a request in order, without the way of the result back.

    trace: of each stage its host, `times` (unpacking, computing, packing begin, packing ends), bytes and arrival.
    sent: when the input was packed and handed over.
    """
    steps: list[Step] = []
    before, handed, packed = source, sent, 0.0
    for stage, note in zip(plan.stages, trace, strict=False):
        offset = offsets.get(stage.device, 0.0)
        unpacking, computing, packing, done = (float(one) - offset for one in note["times"])
        if stage.device != before:
            arrived = float(note["arrived"]) - offset
            taken = max(arrived - handed, 0.0)
            name = f"{before}->{stage.device}"
            steps.append(Step("hop", name, handed, taken, int(note["bytes_in"]), packed, computing - unpacking))
        steps.append(Step("stage", str(stage), computing, packing - computing))
        before, handed, packed = stage.device, done, done - packing
    return tuple(steps)


@dataclass(frozen=True)
class StepFigures:
    """A step predicted and measured: medians over requests, in seconds."""

    kind: str
    name: str
    predicted: float
    measured: float
    bytes: int
    count: int


def figures(plan: Plan, source: str, requests: Iterable[Sequence[Step]]) -> tuple[StepFigures, ...]:
    """Every stage and hop of a plan beside its median over requests that went this way."""
    measured: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for steps in requests:
        for step in steps:
            measured[step.kind, step.name].append(step)
    rows = []
    hops = list(plan.hops)
    before = source
    for stage in plan.stages:
        if stage.device != before and hops:
            hop = hops.pop(0)
            rows.append(("hop", f"{hop.source}->{hop.target}", hop.latency))
        rows.append(("stage", str(stage), stage.seconds))
        before = stage.device
    found = []
    for kind, name, predicted in rows:
        steps_here = measured.get((kind, name), [])
        if steps_here:
            taken = median(step.seconds + step.pack + step.unpack for step in steps_here)
            count = int(median(step.bytes for step in steps_here))
            found.append(StepFigures(kind, name, predicted, taken, count, len(steps_here)))
    return tuple(found)
