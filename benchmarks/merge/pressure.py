"""Answers of six cameras when memory is short: the box's loop on the virtual clock, merged against unmerged."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import interleaved, row
from memory import KINDS, files, packed
from sharing import found

from edgeward.clock import NS
from edgeward.serve.actions import Evict, Load, Wait
from edgeward.serve.events import Decided, FrameArrived, Inferred
from edgeward.serve.policies import policy_named
from edgeward.serve.simulate import Costs, Outcome, ending, simulate
from edgeward.serve.state import ModelSpec, QuerySpec, State
from edgeward.weights.session import Session

SETTINGS = {"min": 0.0, "50": 0.5, "75": 0.75}
FRAMES = {True: 600, False: 90}
PERIOD_NS, DEADLINE_NS = NS // 30, NS // 10
BANDWIDTH = 100e6
"""Bytes a second of a load: the sequential reading of an SD card, as small boxes start from."""
DWELLS, DWELL = (3, 10, 30), 10
"""Frames for which a camera sees the same picture; that of the rows."""


class ByMissingBytes(Costs):
    """A load takes the bytes of the tensors that are not in memory, an inference what was measured."""

    def __init__(self, specs: Mapping[str, ModelSpec], infer_ns: Mapping[str, int]) -> None:
        self.specs, self.infer_ns = specs, infer_ns
        self.held: set[str] = set()
        self.kept: set[str] = set()

    def outcome(self, decided: Decided) -> Outcome:
        action = decided.action
        if isinstance(action, Wait):
            return ending(decided, max(action.until_ns, decided.time_ns))
        taken = 0
        if isinstance(action, Load):
            there = self.kept.union(*(self.specs[name].tensors for name in self.held))
            wanted = self.specs[action.model].tensors
            taken = round(NS * sum(size for key, size in wanted.items() if key not in there) / BANDWIDTH)
            self.held.add(action.model)
            self.kept = set()
        elif isinstance(action, Evict):
            self.held.remove(action.model)
            there = self.kept.union(self.specs[action.model].tensors)
            self.kept = there.intersection(self.specs[action.keep_for].tensors) if action.keep_for else set()
        else:
            taken = self.infer_ns[action.model] * action.batch
        return ending(decided, decided.time_ns + max(taken, 1))


@dataclass(frozen=True, eq=False)
class Kind:
    """Models as the loop sees them, nanoseconds of an inference, and what each says of its held-out pictures."""

    specs: Mapping[str, ModelSpec]
    infer_ns: Mapping[str, int]
    said: Mapping[str, npt.NDArray[np.int64]]


ARMS = {"rr-lru": "unmerged", "rr-mru": "unmerged", "edf": "unmerged", "merged rr-mru": "merged", "ours": "merged"}
"""Policy and models of each way to serve; ours is the box's own policy on merged models."""


def pressure(full: bool, name: str) -> list[dict[str, Any]]:
    """Mean accuracy over cameras and frames at three sizes of memory, the same bytes for all."""
    kinds, work = kinds_of(name, full), found(name, full).workload
    truth = {model: samples.targets.numpy() for model, samples in work.held_out.items()}
    sizes = [spec.bytes for spec in kinds["unmerged"].specs.values()]
    rows = []
    for setting, budget in budgets(sizes, [spec.bytes for spec in kinds["merged"].specs.values()]).items():
        seen = {arm: _scored(kinds[kind], truth, budget, FRAMES[full], policy_of(arm)) for arm, kind in ARMS.items()}
        rows += _rows(name, setting, seen, f"memory {budget / 1e6:.1f} of {sum(sizes) / 1e6:.1f} MB")
    rows[0]["note"] += (
        f"; virtual clock, {FRAMES[full]} frames of each camera at 30 a second, deadline 100 ms, the picture changes after {DWELL} frames, "
        f"loads at {BANDWIDTH / 1e6:.0f} MB/s of missing bytes, measured inferences (median {statistics.median(kinds['merged'].infer_ns.values()) / 1e6:.2f} ms)"
    )
    return rows


def budgets(sizes: Sequence[int], merged: Sequence[int]) -> dict[str, int]:
    """Bytes of memory at each setting: the largest model, and on the way to all unmerged ones.

    Merging may cost the runtime a fusion: the largest merged model can be a little larger.
    """
    least = max(*sizes, *merged)
    return {setting: round(least + share * (sum(sizes) - least)) for setting, share in SETTINGS.items()}


def policy_of(arm: str) -> str:
    """The policy by which an arm serves."""
    return "edf" if arm == "ours" else arm.removeprefix("merged ")


def _rows(name: str, setting: str, seen: Mapping[str, Scores], where: str) -> list[dict[str, Any]]:
    stale = {arm: each[DWELL][1] for arm, each in seen.items()}
    answered = {arm: each[DWELL][0] for arm, each in seen.items()}
    zero = {arm: each[DWELL][2] for arm, each in seen.items()}
    what = "mean accuracy over cameras and frames, a frame without an answer scored by the last answer before it"
    each = ", ".join(f"{arm} {stale[arm]:.3f} (answered in time {answered[arm]:.3f})" for arm in ARMS)
    dwells = ", ".join(
        f"{seen['ours'][dwell][1] / seen['rr-mru'][dwell][1]:.3f} if after {dwell}"
        for dwell in DWELLS
        if dwell != DWELL
    )
    start = f"{name}.pressure.{setting}"
    return [
        row(f"{start}.over_lru", f"{what}: ours on merged models / round robin, the least recent model evicted, unmerged; {where}",
            baseline=f"rr-lru: {stale['rr-lru']:.3f}", ours=stale["ours"] / stale["rr-lru"], unit="x", bar=">= 1.08", note=each),
        row(f"{start}.over_mru", "the same / round robin, the most recent model evicted, unmerged",
            baseline=f"rr-mru: {stale['rr-mru']:.3f}", ours=stale["ours"] / stale["rr-mru"], unit="x", bar=">= 1.08", note=dwells),
        row(f"{start}.merging", "the same / our policy on unmerged models: what merging alone does",
            baseline=f"edf, unmerged: {stale['edf']:.3f}", ours=stale["ours"] / stale["edf"], unit="x"),
        row(f"{start}.policy", "our policy / round robin, the most recent evicted, both on merged models: what the policy alone does",
            baseline=f"rr-mru, merged: {stale['merged rr-mru']:.3f}", ours=stale["ours"] / stale["merged rr-mru"], unit="x"),
        row(f"{start}.zero", "as over_mru, a frame without an answer scored 0",
            baseline=f"rr-mru: {zero['rr-mru']:.3f}", ours=zero["ours"] / zero["rr-mru"], unit="x", note=f"ours {zero['ours']:.3f}"),
    ]  # fmt: skip


Truth = Mapping[str, npt.NDArray[np.int64]]


Scores = Mapping[int, tuple[float, float, float]]
"""By frames for which a picture is seen: shares of frames answered in time, right by the newest answer, right by their
own answer."""


def _scored(kind: Kind, truth: Truth, budget: int, frames: int, policy: str) -> Scores:
    played = _played(kind, budget, frames, policy)
    scores = {}
    for dwell in DWELLS:
        judge = functools.partial(judged, frames=frames, dwell=dwell)
        shares = np.mean([judge(*played[name], kind.said[name], truth[name]) for name in kind.specs], axis=0)
        scores[dwell] = (float(shares[0]), float(shares[1]), float(shares[2]))
    return scores


def _played(kind: Kind, budget: int, frames: int, policy: str) -> dict[str, tuple[list[tuple[int, int]], int]]:
    """Of each camera, frame and time of every answer in order, and when its first frame came."""
    queries = [QuerySpec(name, name, name, 0, DEADLINE_NS, NS) for name in kind.specs]
    offsets = {name: 1 + index * PERIOD_NS // len(queries) for index, name in enumerate(kind.specs)}
    arrivals = [
        FrameArrived(offset + frame * PERIOD_NS, name, frame, frame)
        for frame in range(frames)
        for name, offset in offsets.items()
    ]
    costs = ByMissingBytes(kind.specs, kind.infer_ns)
    run = simulate(State.start(queries, kind.specs.values(), budget), arrivals, policy_named(policy), costs)
    answers: dict[str, list[tuple[int, int]]] = {name: [] for name in kind.specs}
    for event in run.events:
        if isinstance(event, Inferred):
            for job in event.jobs:
                answers[job.query].append((job.frame, event.time_ns))
    return {name: (sorted(answers[name]), offsets[name]) for name in kind.specs}


def judged(
    answers: Sequence[tuple[int, int]],
    offset: int,
    said: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    frames: int,
    dwell: int,
) -> tuple[float, float, float]:
    """One camera's shares. answers: frame and time, in order; said, truth: by picture."""
    answered = stale = nothing = 0
    newest, upcoming = -1, 0
    for frame in range(frames):
        end = offset + frame * PERIOD_NS + DEADLINE_NS
        while upcoming < len(answers) and answers[upcoming][0] <= frame and answers[upcoming][1] <= end:
            newest, upcoming = answers[upcoming][0], upcoming + 1
        right = newest >= 0 and said[newest // dwell % len(said)] == truth[frame // dwell % len(truth)]
        answered += newest == frame
        stale += bool(right)
        nothing += bool(right) and newest == frame
    return answered / frames, stale / frames, nothing / frames


@functools.cache
def kinds_of(name: str, full: bool) -> dict[str, Kind]:
    """Unmerged and merged models of a workload."""
    ours, folder = found(name, full), files(name, full)
    unmerged = {task.name: task.module for task in ours.workload.fresh()}
    opened = {kind: packed(folder, kind) for kind in KINDS}
    runs = {}
    for kind, (models, store) in opened.items():
        for model, one in models.items():
            session = Session(one, store)
            session.attach()
            feeds = {one.inputs[0].name: np.zeros((1, *one.inputs[0].shape[1:]), np.float32)}
            runs[f"{kind} {model}"] = functools.partial(_timed, session, feeds)
    taken = interleaved(runs, 50 if full else 10)
    kinds = {}
    for kind, modules in zip(KINDS, (unmerged, ours.modules), strict=True):
        models, _ = opened[kind]
        with torch.no_grad():
            said = {
                model: module(ours.workload.held_out[model].inputs).argmax(1).numpy()
                for model, module in modules.items()
            }
        kinds[kind] = Kind(
            {model: ModelSpec(model, models[model].tensor_bytes) for model in modules},
            {model: round(NS * statistics.median(taken[f"{kind} {model}"])) for model in modules},
            said,
        )
    return kinds


def _timed(session: Session, feeds: Mapping[str, npt.NDArray[np.float32]]) -> float:
    begin = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - begin
