"""Merged models served from ONNX files and the weight store: memory of the process, seconds of a load."""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from harness import interleaved, row

from edgeward.weights.pack import PackedModel, pack
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

KINDS = ("unmerged", "merged")
ROUNDS = {True: 40, False: 5}


def memory(full: bool, name: str) -> list[dict[str, Any]]:
    """Proportional set size, and loads with and without sharers in memory."""
    folder = files(name, full)
    grown = {kind: measured(folder, kind) for kind in KINDS}
    fall = grown["unmerged"]["pss"] - grown["merged"]["pss"]
    counted = grown["unmerged"]["counted"] - grown["merged"]["counted"]
    return [
        row(f"{name}.process.fall", "fall of the proportional set size that six models add to a fresh process, each attached from the weight store and run once / bytes of unique tensors saved",
            baseline=f"unmerged: {grown['unmerged']['pss'] / 1e6:.1f} MB", ours=fall / counted, unit="x", bar=">= 0.9",
            note=f"{grown['unmerged']['pss'] / 1e6:.1f} to {grown['merged']['pss'] / 1e6:.1f} MB, tensors {grown['unmerged']['counted'] / 1e6:.1f} to {grown['merged']['counted'] / 1e6:.1f} MB"),
        *loads(folder, name, ROUNDS[full]),
    ]  # fmt: skip


@functools.cache
def files(name: str, full: bool) -> Path:
    """A folder with every model as ONNX, unmerged and merged, and one small one to warm up with; all packed."""
    from sharing import found
    from workload import ALL, SIDE, Camera, Shape, build

    from edgeward.merge.export import export_onnx
    from edgeward.merge.store import Merged, save_merged
    from edgeward.zoo.network import Network

    ours = found(name, full)
    folder = Path(ours.place.name)
    factories = ours.workload.factories()
    save_merged(folder / "apart", [Merged(task.network) for task in ours.workload.fresh()])
    small = Camera("ten", "plain", Shape((4, 4), 1, (8,)), ALL)
    save_merged(folder / "small", [Merged(Network("small", build(small), (1, SIDE, SIDE)))])
    export_onnx(folder / "small", "small", folder / "small.onnx", lambda: build(small))
    for kind, source in zip(KINDS, (folder / "apart", ours.folder), strict=True):
        (folder / kind).mkdir(exist_ok=True)
        for model, factory in factories.items():
            export_onnx(source, model, folder / kind / f"{model}.onnx", factory)
        packed(folder, kind)
    packed(folder, "small")
    return folder


def packed(folder: Path, kind: str) -> tuple[dict[str, PackedModel], WeightStore]:
    """The models of a kind, and the store that holds them."""
    store = WeightStore(folder / f"cache-{kind}")
    paths = sorted((folder / kind).glob("*.onnx")) if kind in KINDS else [folder / f"{kind}.onnx"]
    return {path.stem: pack(path, store) for path in paths}, store


def bytes_of(folder: Path, kind: str) -> list[int]:
    """Bytes of each model's tensors."""
    return [sum(one.tensor_bytes.values()) for one in packed(folder, kind)[0].values()]


def loads(folder: Path, name: str, rounds: int) -> list[dict[str, Any]]:
    """Seconds from attaching a model's weights until all of them have been read, skeletons made before.

    From the page cache; and with every page that no process maps dropped from it before each load, as at a disk.
    """
    models, store = packed(folder, "merged")
    sessions = {model: Session(one, store) for model, one in models.items()}

    def load(model: str) -> float:
        begin = time.perf_counter()
        sessions[model].attach()  # which reads what was not in memory
        return time.perf_counter() - begin

    def alone(model: str, cold: bool) -> float:
        for session in sessions.values():
            session.detach()
        return after(model, cold)

    def beside(model: str, cold: bool) -> float:
        for other in sessions:
            if other != model and not sessions[other].attached:
                load(other)
        sessions[model].detach()
        return after(model, cold)

    def after(model: str, cold: bool) -> float:
        gc.collect()
        if cold:
            drop_pages(store.folder)
        return load(model)

    shares = unshared(models)
    rows = []
    for kind, words in (("cached", "files in the page cache"), ("disk", "files dropped from the page cache before")):
        falls, seconds = {}, {}
        for model in models:
            runs = {one.__name__: functools.partial(one, model, kind == "disk") for one in (alone, beside)}
            taken = interleaved(runs, rounds)
            seconds[model] = statistics.median(taken["alone"])
            falls[model] = statistics.median(taken["beside"]) / seconds[model]
        each = ", ".join(f"{model} {falls[model]:.2f} for {shares[model]:.2f} of its bytes" for model in models)
        rows.append(
            row(f"{name}.load.{kind}", f"seconds to load a merged model whose sharers are in memory / to load it alone, mean over models, medians of interleaved loads; {words}",
                baseline=f"unshared bytes: {statistics.mean(shares.values()):.3f}", ours=statistics.mean(falls.values()), unit="x", spread=[min(falls.values()), max(falls.values())],
                note=f"{each}; alone {1000 * statistics.mean(seconds.values()):.2f} ms; binding costs something for each tensor, shared or not")
        )  # fmt: skip
    return rows


def unshared(models: Mapping[str, PackedModel]) -> dict[str, float]:
    """Of each model's bytes, the share that no other model has."""
    found = {}
    for model, one in models.items():
        others = {key for other in models if other != model for key in models[other].tensor_bytes}
        own = one.tensor_bytes
        found[model] = sum(size for key, size in own.items() if key not in others) / sum(own.values())
    return found


def drop_pages(folder: Path) -> None:
    """Let the page cache forget the segments, except for what is mapped now."""
    for path in folder.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def measured(folder: Path, kind: str) -> dict[str, int]:
    """What a fresh process says."""
    done = subprocess.run([sys.executable, __file__, str(folder), kind], check=True, capture_output=True, text=True)
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


def proportional_bytes() -> int:
    """Proportional set size of this process, without what the allocator keeps of memory that was let go."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def fresh(folder: Path, kind: str) -> None:
    """In that process: a small model first, so that code that is read at first use does not count."""

    def served(which: str) -> tuple[list[Session], int]:
        models, store = packed(folder, which)
        sessions = [Session(one, store) for one in models.values()]
        for session, one in zip(sessions, models.values(), strict=True):
            session.attach()
            session.run({one.inputs[0].name: np.zeros((1, *one.inputs[0].shape[1:]), np.float32)})
        return sessions, sum({key: size for one in models.values() for key, size in one.tensor_bytes.items()}.values())

    kept = [served("small")]
    before = proportional_bytes()
    kept.append(served(kind))
    print(json.dumps({"pss": proportional_bytes() - before, "counted": kept[-1][1]}))


if __name__ == "__main__":
    fresh(Path(sys.argv[1]), sys.argv[2])
