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
    """A load takes the bytes of the tensors that no model in memory holds, an inference what was measured.

    keeping: nor those that evicted models held, until the next load.
    """

    def __init__(self, specs: Mapping[str, ModelSpec], infer_ns: Mapping[str, int], keeping: bool) -> None:
        self.specs, self.infer_ns, self.keeping = specs, infer_ns, keeping
        self.held: set[str] = set()
        self.leaving: set[str] = set()

    def outcome(self, decided: Decided) -> Outcome:
        action = decided.action
        if isinstance(action, Wait):
            return ending(decided, max(action.until_ns, decided.time_ns))
        taken = 0
        if isinstance(action, Load):
            there = {key for name in self.held | self.leaving for key in self.specs[name].tensors}
            wanted = self.specs[action.model].tensors
            taken = round(NS * sum(size for key, size in wanted.items() if key not in there) / BANDWIDTH)
            self.held.add(action.model)
            self.leaving.clear()
        elif isinstance(action, Evict):
            self.held.remove(action.model)
            if self.keeping:
                self.leaving.add(action.model)
        else:
            taken = self.infer_ns[action.model]
        return ending(decided, decided.time_ns + max(taken, 1))


@dataclass(frozen=True, eq=False)
class Kind:
    """Models as the loop sees them, nanoseconds of an inference, and what each says of its held-out pictures."""

    specs: Mapping[str, ModelSpec]
    infer_ns: Mapping[str, int]
    said: Mapping[str, npt.NDArray[np.int64]]


def pressure(full: bool, name: str) -> list[dict[str, Any]]:
    """Mean accuracy over cameras and frames at three sizes of memory, the same bytes for both."""
    kinds, work = _kinds(name, full), found(name, full).workload
    truth = {model: samples.targets.numpy() for model, samples in work.held_out.items()}
    sizes = [spec.bytes for spec in kinds["unmerged"].specs.values()]
    rows = []
    for setting, share in SETTINGS.items():
        budget = round(max(sizes) + share * (sum(sizes) - max(sizes)))
        score = functools.partial(_scored, kinds, truth, budget, FRAMES[full])
        theirs = score("unmerged", "edf-lru")
        answered, stale, nothing = theirs[DWELL]
        ours = score("merged", "edf-lru")
        kept = score("merged", "edf-lru", keeping=True)[DWELL]
        static = {kind: score(kind, "edf-static")[DWELL][1] for kind in KINDS}
        others = ", ".join(
            f"{ours[dwell][1] / theirs[dwell][1]:.3f} if after {dwell}" for dwell in DWELLS if dwell != DWELL
        )
        where = f"memory {budget / 1e6:.1f} of {sum(sizes) / 1e6:.1f} MB"
        rows += [
            row(f"{name}.pressure.{setting}.stale", f"mean accuracy over cameras and frames merged / unmerged, a frame without an answer scored by the last answer before it; {where}",
                baseline=f"unmerged, edf-lru: {stale:.3f}", ours=ours[DWELL][1] / stale, unit="x", bar=">= 1.08",
                note=f"{stale:.3f} to {ours[DWELL][1]:.3f}; answered in time {answered:.3f} to {ours[DWELL][0]:.3f}; {others}; "
                f"without swapping (edf-static) {static['unmerged']:.3f} to {static['merged']:.3f}"),
            row(f"{name}.pressure.{setting}.zero", "the same, a frame without an answer scored 0",
                baseline=f"unmerged, edf-lru: {nothing:.3f}", ours=ours[DWELL][2] / nothing, unit="x", note=f"{nothing:.3f} to {ours[DWELL][2]:.3f}"),
            row(f"{name}.pressure.{setting}.kept", "the row of the last answer, if eviction left in memory what the next load shares, which the box does not do",
                baseline=f"unmerged, edf-lru: {stale:.3f}", ours=kept[1] / stale, unit="x", note=f"answered in time {kept[0]:.3f}"),
        ]  # fmt: skip
    rows[0]["note"] += (
        f"; virtual clock, {FRAMES[full]} frames of each camera at 30 a second, deadline 100 ms, the picture changes after {DWELL} frames, "
        f"loads at {BANDWIDTH / 1e6:.0f} MB/s of missing bytes, measured inferences (median {statistics.median(kinds['merged'].infer_ns.values()) / 1e6:.2f} ms); "
        "the most-recently-run order of eviction is no policy of the box and was not compared"
    )
    return rows


Truth = Mapping[str, npt.NDArray[np.int64]]


def _scored(
    kinds: Mapping[str, Kind], truth: Truth, budget: int, frames: int, kind: str, policy: str, keeping: bool = False
) -> dict[int, tuple[float, float, float]]:
    """By dwell: shares of frames answered in time, right by the newest answer, and right by their own answer."""
    one = kinds[kind]
    played = _played(one, budget, frames, policy, keeping)
    found = {}
    for dwell in DWELLS:
        judge = functools.partial(judged, frames=frames, dwell=dwell)
        shares = np.mean([judge(*played[name], one.said[name], truth[name]) for name in one.specs], axis=0)
        found[dwell] = (float(shares[0]), float(shares[1]), float(shares[2]))
    return found


def _played(
    kind: Kind, budget: int, frames: int, policy: str, keeping: bool
) -> dict[str, tuple[list[tuple[int, int]], int]]:
    """Of each camera, frame and time of every answer in order, and when its first frame came."""
    queries = [QuerySpec(name, name, name, 0, DEADLINE_NS, NS) for name in kind.specs]
    offsets = {name: 1 + index * PERIOD_NS // len(queries) for index, name in enumerate(kind.specs)}
    arrivals = [
        FrameArrived(offset + frame * PERIOD_NS, name, frame, frame)
        for frame in range(frames)
        for name, offset in offsets.items()
    ]
    costs = ByMissingBytes(kind.specs, kind.infer_ns, keeping)
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


def _kinds(name: str, full: bool) -> dict[str, Kind]:
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
