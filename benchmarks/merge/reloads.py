"""An hour of requests to six models, more than fit: the box against a cache of the models that were used last.

    python benchmarks/merge/reloads.py high

Time between requests passes on a virtual clock; every load and every inference is carried out and measured. The rival
is what servers of many models do. Roboflow inference keeps at most MAX_ACTIVE_MODELS in `WithFixedSizeCache`, a queue in
order of last use; Ray Serve at most `max_num_models_per_replica`, 3 unless told otherwise, of a `@serve.multiplexed`
loader in an ordered dictionary. Both evict the one used longest ago before they load, count models, not bytes, and load
whole models, one load at a time. Memory is that of weights: the box holds the skeletons of all six models beside them.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from harness import row
from live import Loading, loads
from livebox import Pages
from memory import bytes_of, files, packed
from pressure import BANDWIDTH, budgets
from slowdisk import SlowDisk

from edgeward.clock import NS, to_ns
from edgeward.serve.actions import Evict, Infer, Load, Wait
from edgeward.serve.events import Decided, FrameArrived, Inferred
from edgeward.serve.policies import policy_named
from edgeward.serve.simulate import Costs, Outcome, ending, simulate
from edgeward.serve.state import ModelSpec, QuerySpec, State
from edgeward.weights.pack import PackedModel, session_options
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

HOUR = 3600.0
RELOADS = 200
BURST, GAP = 20, 0.5
"""Requests of a burst to one model, on average, and seconds between two of them."""
DEADLINE = 1.0
SEED = 7


@dataclass(frozen=True)
class Request:
    """A request for a model, seconds after the start."""

    time: float
    model: str


@dataclass(frozen=True)
class Served:
    """What a server did: its loads, and seconds of every request."""

    loads: Sequence[Loading]
    latencies: Sequence[float]

    @property
    def reloads(self) -> list[Loading]:
        """Loads that read anything, of models that had been loaded before."""
        first = {one.model: one for one in reversed(self.loads)}
        return [one for one in self.loads if one.missing and one is not first[one.model]]

    def percentile(self, share: float) -> float:
        """Seconds that this percentage of requests took at most."""
        return float(np.percentile(self.latencies, share))


def trace(full: bool, name: str) -> list[dict[str, Any]]:
    """Reloads, bytes read and latencies over the hour, at two sizes of memory; quick: over a quarter of it, at one."""
    folder = files(name, full)
    kinds = {kind: packed(folder, kind) for kind in ("unmerged", "merged")}
    sizes = {model: sum(one.tensor_bytes.values()) for model, one in kinds["unmerged"][0].items()}
    found = []
    with _disk([folder / "unmerged", *(store.folder for _, store in kinds.values())]) as disks:
        for setting in ("min", "50") if full else ("50",):
            budget = budgets(list(sizes.values()), bytes_of(folder, "merged"))[setting]
            slots = next(count for count in range(len(sizes), 0, -1) if sum(sorted(sizes.values())[-count:]) <= budget)
            hour = [one for one in requests(list(sizes), slots) if full or one.time < HOUR / 4]
            theirs = cached(hour, disks[0], slots)
            ours = {
                kind: boxed(hour, models, disk, budget)
                for (kind, (models, _)), disk in zip(kinds.items(), disks[1:], strict=True)
            }
            where = f"memory {budget / 1e6:.1f} MB, {slots} of {len(sizes)} whole models"
            found += _rows(f"{name}.trace.{setting}", theirs, ours, where)
    return found


def requests(models: Sequence[str], slots: int) -> list[Request]:
    """Bursts of requests, each to one model; which, by Zipf's law; how many an hour, so that a cache of the `slots`
    models used last reloads 200 times."""
    rates = [1 / rank for rank in range(1, len(models) + 1)]

    def hour(bursts: int) -> list[Request]:
        lot = random.Random(SEED)
        found = []
        for _ in range(bursts):
            [model] = lot.choices(models, rates)
            moment = lot.uniform(0, HOUR)
            while moment < HOUR:
                found.append(Request(moment, model))
                moment += lot.expovariate(1 / GAP)
                if lot.random() < 1 / BURST:
                    break
        return sorted(found, key=lambda one: (one.time, one.model))

    def off(bursts: int) -> int:
        recent: OrderedDict[str, None] = OrderedDict()
        loads = 0
        for one in hour(bursts):
            loads += one.model not in recent
            recent[one.model] = None
            recent.move_to_end(one.model)
            if len(recent) > slots:
                recent.popitem(last=False)
        return abs(loads - len(models) - RELOADS)

    return hour(min(range(50, 2 * RELOADS + 200, 5), key=off))


@contextlib.contextmanager
def _disk(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """The same files on a slow disk where one can be had, else where they are."""
    if SlowDisk.missing():
        yield list(folders)
        return
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(SlowDisk(folder, BANDWIDTH)) for folder in folders]


def cached(requests: Sequence[Request], folder: Path, slots: int) -> Served:
    """The rival: whole models from files that the page cache has forgotten.

    In its favour, loads hold up no request for models in memory, nor do inferences of different models each other.
    """
    pages, recent = Pages(folder), OrderedDict[str, onnxruntime.InferenceSession]()
    loads, latencies = [], []
    loader, free = 0.0, dict.fromkeys((one.model for one in requests), 0.0)
    for one in requests:
        if one.model not in recent:
            pages.forget()
            begin = time.perf_counter()
            if len(recent) == slots:
                recent.popitem(last=False)
            path = folder / f"{one.model}.onnx"
            recent[one.model] = onnxruntime.InferenceSession(
                str(path), session_options(1), providers=["CPUExecutionProvider"]
            )
            loads.append(Loading(one.model, path.stat().st_size, time.perf_counter() - begin))
            loader = max(loader, one.time) + loads[-1].seconds
            free[one.model] = loader
        recent.move_to_end(one.model)
        picture = _picture(recent[one.model].get_inputs()[0])
        begin = time.perf_counter()
        recent[one.model].run(None, picture)
        free[one.model] = max(free[one.model], one.time) + time.perf_counter() - begin
        latencies.append(free[one.model] - one.time)
    pages.close()
    return Served(loads, latencies)


def _picture(port: Any) -> dict[str, npt.NDArray[np.float32]]:
    """A black one for a model's input, whose first dimension is the batch."""
    return {port.name: np.zeros((1, *port.shape[1:]), np.float32)}


class Measured(Costs):
    """Carries out what is decided, on sessions of the store, and charges what it took."""

    def __init__(self, models: Mapping[str, PackedModel], disk: Path) -> None:
        self._models, self._store, self._pages = models, WeightStore(disk), Pages(disk)
        self._sessions = {name: Session(one, self._store) for name, one in models.items()}
        self._feeds = {name: _picture(one.inputs[0]) for name, one in models.items()}
        self._kept: object = None

    def outcome(self, decided: Decided) -> Outcome:
        action = decided.action
        if isinstance(action, Wait):
            return ending(decided, max(action.until_ns, decided.time_ns))
        begin = time.perf_counter()
        if isinstance(action, Load):
            self._sessions[action.model].attach()
            self._kept = None
        elif isinstance(action, Evict):
            wanted = self._models[action.keep_for].tensors.values() if action.keep_for else ()
            self._kept = self._store.borrowed(wanted)
            self._sessions[action.model].detach()
        elif isinstance(action, Infer):
            self._sessions[action.model].run(self._feeds[action.model])
        taken = time.perf_counter() - begin
        if isinstance(action, Evict):
            self._pages.forget()
        return ending(decided, decided.time_ns + max(to_ns(taken), 1))

    def close(self) -> None:
        """Let go of everything."""
        for session in self._sessions.values():
            session.close()
        self._pages.close()


def boxed(requests: Sequence[Request], models: Mapping[str, PackedModel], disk: Path, budget: int) -> Served:
    """The box: its loop, its policy and its weight store; every request is answered."""
    deadline = to_ns(DEADLINE)
    queries = [QuerySpec(name, name, name, 0, deadline, to_ns(HOUR), every_frame=True) for name in models]
    state = State.start(queries, [ModelSpec(name, one.tensor_bytes) for name, one in models.items()], budget)
    arrivals = [FrameArrived(1 + to_ns(one.time), one.model, index, index) for index, one in enumerate(requests)]
    costs = Measured(models, disk)
    run = simulate(state, arrivals, policy_named("edf"), costs)
    costs.close()
    latencies = [
        (event.time_ns - job.arrived_ns) / NS
        for event in run.events
        if isinstance(event, Inferred)
        for job in event.jobs
    ]
    return Served(list(loads(state, run.events)), latencies)


def _rows(name: str, theirs: Served, ours: Mapping[str, Served], where: str) -> list[dict[str, Any]]:
    merged, apart = ours["merged"], ours["unmerged"]
    disk = "this machine's own disk" if SlowDisk.missing() else f"a file system of {BANDWIDTH / 1e6:.0f} MB/s"
    each = {"their cache": theirs, "unmerged": apart, "merged": merged}
    slowest = {kind: max((load.seconds for load in one.loads), default=0) for kind, one in each.items()}
    parts = ", ".join(
        f"{kind} {1e3 * one.percentile(50):.2f} / {1e3 * one.percentile(99):.1f} / {1e3 * slowest[kind]:.0f} ms"
        for kind, one in each.items()
    )
    what = f"{len(theirs.latencies)} requests for six models, {where}; the box with merged models / a cache of whole models in order of last use"
    read = {kind: sum(load.missing for load in one.loads) / 1e6 for kind, one in each.items()}
    return [
        row(f"{name}.reloads", f"loads that read anything, of models that had been loaded before; {what}",
            baseline=f"their cache: {len(theirs.reloads)}", ours=len(merged.reloads) / max(len(theirs.reloads), 1), unit="x",
            note=f"merged {len(merged.reloads)}, unmerged in the box {len(apart.reloads)}; {BURST} requests a burst, {GAP} s apart, models by Zipf's law; "
            f"Roboflow inference (WithFixedSizeCache) and Ray Serve (serve.multiplexed) evict so; loads and inferences measured from {disk}, "
            "no page cached, time between requests on a virtual clock, one request after another in a model"),
        row(f"{name}.bytes", f"bytes read by all loads; {what}", baseline=f"their cache: {read['their cache']:.0f} MB",
            ours=read["merged"] / read["their cache"], unit="x", note=f"merged {read['merged']:.0f} MB, unmerged in the box {read['unmerged']:.0f} MB"),
        row(f"{name}.p99", f"99th percentile of seconds from a request to its answer; {what}", baseline=f"their cache: {1e3 * theirs.percentile(99):.1f} ms",
            ours=merged.percentile(99) / theirs.percentile(99), unit="x", note=f"median / 99th percentile / slowest load: {parts}"),
    ]  # fmt: skip


if __name__ == "__main__":
    for line in trace("--full" in sys.argv, sys.argv[1]):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
