"""Six cameras when memory is short, live: the real box on the wall clock, its weights on a slow disk.

    python benchmarks/merge/live.py high

Each run is a box in a process of its own: pictures are decoded from files at 30 a second for every camera, policies decide,
weights are attached and let go, models run, answers are read from the box's log. Then the box's loop runs again on the
virtual clock, with the arrivals and the median inferences of that very log.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from harness import row
from memory import KINDS, bytes_of, files
from pressure import ARMS, BANDWIDTH, DEADLINE_NS, DWELL, PERIOD_NS, ByMissingBytes, budgets, judged, policy_of
from served import Classes, served
from sharing import found
from slowdisk import SlowDisk

from edgeward.clock import NS
from edgeward.serve.actions import Infer
from edgeward.serve.apply import apply
from edgeward.serve.events import Event, FrameArrived, Inferred, Loaded
from edgeward.serve.log import read_log
from edgeward.serve.policies import policy_named
from edgeward.serve.simulate import outside, pairs, simulate
from edgeward.serve.state import State

RIVALS = {"over_lru": "rr-lru", "over_mru": "rr-mru"}
FRAMES = {True: 360, False: 90}
ROUNDS = {True: 2, False: 1}


class Loading(NamedTuple):
    """A load: the bytes that were missing, and the seconds it took."""

    model: str
    missing: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Ground:
    """What all runs share.

    models, said: of each kind, entries of the box file, and classes by picture; budgets: bytes by setting.
    """

    folder: Path
    disk: Path
    models: Mapping[str, list[dict[str, Any]]]
    said: Mapping[str, Classes]
    budgets: Mapping[str, int]
    truth: Classes


@dataclass(frozen=True)
class Run:
    """Shares of frames: answered in time, right by the newest answer, and the latter on the virtual clock."""

    answered: float
    right: float
    virtual: float
    loads: tuple[Loading, ...]


def live(full: bool, name: str) -> list[dict[str, Any]]:
    """Accuracy on screen at three sizes of memory, over time and space sharing. Quick: one size."""
    if reason := SlowDisk.missing():
        definition = "accuracy in the real box when memory is short, over time and space sharing"
        return [row(f"{name}.live", definition, baseline="", ours=None, unit="", note=f"skipped: {reason}")]
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="merge-live-") as scratch:
        folder = Path(scratch)
        models, said = served(name, full, folder, FRAMES[full])
        sizes = {kind: bytes_of(files(name, full), kind) for kind in KINDS}
        held_out = found(name, full).workload.held_out
        truth = {model: samples.targets[: len(said["merged"][model])].numpy() for model, samples in held_out.items()}
        with _slow(folder / "cache/weights", folder / "segments") as disk:
            ground = Ground(folder, disk, models, said, budgets(sizes["unmerged"], sizes["merged"]), truth)
            settings = list(ground.budgets) if full else ["50"]
            for number in range(ROUNDS[full]):
                for setting, arm in itertools.product(settings, list(ARMS)[:: -1 if number % 2 else 1]):
                    runs[setting, arm].append(_played(ground, setting, arm, FRAMES[full]))
    return [line for setting in settings for line in _rows(name, setting, ground, runs, full)]


@contextlib.contextmanager
def _slow(weights: Path, segments: Path) -> Iterator[Path]:
    """Have a weight store's segments on a slow disk, whose folder this is; its small files stay where they are."""
    segments.mkdir()
    for path in weights.glob("*.safetensors"):
        path.rename(segments / path.name)
    with SlowDisk(segments, BANDWIDTH) as disk:
        for path in disk.iterdir():
            (weights / path.name).symlink_to(path)
        yield disk


def _played(ground: Ground, setting: str, arm: str, frames: int) -> Run:
    policy = policy_of(arm)
    with tempfile.TemporaryDirectory(dir=ground.folder) as scratch:
        file = Path(scratch) / "box.yaml"
        file.write_text(yaml.safe_dump(_box(ground, ground.models[ARMS[arm]], ground.budgets[setting], policy)))
        command = [sys.executable, str(Path(__file__).with_name("livebox.py")), str(file), str(ground.disk)]
        subprocess.run(command, check=True, timeout=60 + 2 * frames * PERIOD_NS / NS)
        (recording,) = read_log(Path(scratch) / "data" / "log")
    state, events = recording.state, recording.events
    answered, right, _ = _shares(events, ground.truth, frames, _said(events, ground.truth))
    inferences: dict[str, list[int]] = defaultdict(list)
    for decided, outcome in pairs(events):
        if isinstance(decided.action, Infer):
            inferences[decided.action.model].append(outcome.time_ns - decided.time_ns)
    medians = {model: round(statistics.median(inferences.get(model, [NS]))) for model in state.models}
    specs = {model: one.spec for model, one in state.models.items()}
    costs = ByMissingBytes(specs, medians)
    again = simulate(state, outside(events), policy_named(policy), costs, until_ns=events[-1].time_ns)
    _, virtual, _ = _shares(again.events, ground.truth, frames, ground.said[ARMS[arm]])
    return Run(answered, right, virtual, tuple(loads(state, events)))


def _box(ground: Ground, models: list[dict[str, Any]], budget: int, policy: str) -> dict[str, Any]:
    """The box file of a run."""
    names = [one["name"] for one in models]
    return {
        "cameras": [{"name": one, "source": str(ground.folder / one), "rate": NS / PERIOD_NS} for one in names],
        "models": models,
        "queries": [{"name": one, "camera": one, "model": one, "deadline": DEADLINE_NS / NS} for one in names],
        "budget": {"memory": budget, "threads": 1, "device": "cpu"}, "policy": policy,
        "store": {"enabled": False, "log_bytes": 1 << 30}, "web": {"enabled": False},
        "data": "data", "cache": str(ground.folder / "cache"),
    }  # fmt: skip


def loads(state: State, events: Iterable[Event]) -> Iterator[Loading]:
    """All that ended."""
    for event in events:
        if isinstance(event, Loaded) and state.loader is not None:
            yield Loading(event.model, state.loading_bytes, (event.time_ns - state.loader.since_ns) / NS)
        state = apply(state, event)


def _said(events: Iterable[Event], truth: Classes) -> Classes:
    """The class that was answered for each picture of each camera, -1 for none."""
    said = {camera: np.full(len(classes), -1) for camera, classes in truth.items()}
    for event in events:
        if isinstance(event, Inferred):
            for job, result in zip(event.jobs, event.results, strict=True):
                pictures = said[job.query]
                pictures[job.frame // DWELL % len(pictures)] = result["class_id"][0] if result["class_id"] else -1
    return said


def _shares(events: Iterable[Event], truth: Classes, frames: int, said: Classes) -> tuple[float, float, float]:
    """Means over cameras: frames answered in time, right by the newest answer, right by their own."""
    answers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    begins: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if isinstance(event, FrameArrived):
            begins[event.camera].append(event.time_ns - event.frame * PERIOD_NS)
        elif isinstance(event, Inferred):
            for job in event.jobs:
                answers[job.query].append((job.frame, event.time_ns))
    shares = [
        judged(sorted(answers[one]), round(statistics.median(begins[one])), said[one], truth[one], frames, DWELL)
        for one in truth
    ]
    answered, right, own = np.mean(shares, axis=0).tolist()
    return answered, right, own


def _rows(
    name: str, setting: str, ground: Ground, runs: Mapping[tuple[str, str], list[Run]], full: bool
) -> list[dict[str, Any]]:
    mean = {
        arm: [statistics.mean(getattr(run, part) for run in runs[setting, arm]) for part in ("answered", "right", "virtual")]
        for arm in ARMS
    }  # fmt: skip
    arms = ", ".join(f"{arm} {right:.3f} ({answered:.2f} answered)" for arm, (answered, right, _) in mean.items())
    paced = "; ".join(f"{arm}: {_pace(runs[setting, arm])}" for arm in (*RIVALS.values(), "ours"))
    budget, seconds = ground.budgets[setting] / 1e6, ROUNDS[full] * FRAMES[full] * PERIOD_NS / NS
    lines = [
        row(f"{name}.live.{setting}.{kind}", f"mean accuracy on screen in the real box, a frame without an answer in time scored by the last answer before it: ours on merged models / {rival}, unmerged; memory {budget:.1f} MB",
            baseline=f"{rival}: {mean[rival][1]:.3f}", ours=mean["ours"][1] / mean[rival][1], unit="x", bar=">= 1.08",
            spread=sorted(ours.right / theirs.right for ours, theirs in zip(runs[setting, "ours"], runs[setting, rival], strict=True)))
        for kind, rival in RIVALS.items()
    ]  # fmt: skip
    lines[0]["note"] = (
        f"{arms}; {seconds:.0f} s of each, six cameras at {NS / PERIOD_NS:.0f} a second, the picture changes after {DWELL} frames, deadline "
        f"{DEADLINE_NS / 1e6:.0f} ms; weights on a file system of {BANDWIDTH / 1e6:.0f} MB/s, dropped from the page cache when let go; {paced}"
    )
    ratios = {arm: virtual / right for arm, (_, right, virtual) in mean.items()}
    lines.append(
        row(f"{name}.live.{setting}.virtual", f"accuracy on screen on the virtual clock / live, ours; arrivals and median inferences of the live run, loads at {BANDWIDTH / 1e6:.0f} MB/s of missing bytes",
            baseline=f"live: {mean['ours'][1]:.3f}", ours=ratios["ours"], unit="x",
            note=", ".join(f"{arm} {ratio:.3f}" for arm, ratio in ratios.items()))
    )  # fmt: skip
    return lines


def _pace(runs: Iterable[Run]) -> str:
    """In words, how fast loads were."""
    reads = [load for run in runs for load in run.loads if load.missing]
    if not reads:
        return "no load of missing bytes"
    size, seconds = sum(load.missing for load in reads), sum(load.seconds for load in reads)
    return f"{len(reads)} loads of {size / len(reads) / 1e6:.2f} MB in {1e3 * seconds / len(reads):.1f} ms, {size / seconds / 1e6:.0f} MB/s"


if __name__ == "__main__":
    for line in live("--full" in sys.argv, sys.argv[1]):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
