"""Loading through the weight store against plain ONNX Runtime, in one run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from harness import interleaved, ratio, row

from edgeward.serve.models import default_cache
from edgeward.weights.pack import PackedModel, pack, session_options
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore
from edgeward.zoo.export import portable_onnx

NAME = "ssdlite-person"

MEMORY = """
import json, sys, psutil, numpy as np
from pathlib import Path
from edgeward.weights.pack import pack
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore
path, folder, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
store = WeightStore(folder)
packed = pack(path, store)
feeds = {packed.inputs[0].name: np.zeros([1, *packed.inputs[0].shape[1:]], np.float32)}
before = psutil.Process().memory_full_info().uss
sessions = [Session(packed, store) for _ in range(count)]
for session in sessions:
    session.attach()
    session.run(feeds)
print(psutil.Process().memory_full_info().uss - before)
"""


def rows(quick: bool) -> list[dict[str, Any]]:
    """Load, run speed, equality, memory of four sessions, stall of inference while another model loads."""
    path, _ = portable_onnx(NAME, None, default_cache() / "models")
    with tempfile.TemporaryDirectory() as folder:
        store = WeightStore(Path(folder))
        packed = pack(path, store)
        found = [
            *_loading(path, packed, store, 9 if quick else 31),
            *_running(path, packed, store, 40 if quick else 200),
        ]
        one, four = (_memory(path, folder, count) for count in (1, 4))
        found.append(
            row(
                "weights.four_sessions_memory",
                "unique bytes added by four sessions of one model, each loaded and run once / by one session",
                baseline=f"one: {one / 2**20:.1f} MiB", ours=four / one, unit="x", bar="<= 1.1",
            )
        )  # fmt: skip
        found.append(_stall(packed, store, 100 if quick else 400))
    return found


def _plain(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), session_options(1), providers=["CPUExecutionProvider"])


def _loading(path: Path, packed: PackedModel, store: WeightStore, repeats: int) -> list[dict[str, Any]]:
    session = Session(packed, store)

    def again() -> float:
        session.detach()
        begin = time.perf_counter()
        session.attach()
        return time.perf_counter() - begin

    def first() -> float:
        session.close()
        begin = time.perf_counter()
        fresh = Session(packed, store)
        fresh.attach()
        taken = time.perf_counter() - begin
        fresh.close()
        return taken

    def plain() -> float:
        begin = time.perf_counter()
        kept = _plain(path)
        taken = time.perf_counter() - begin
        del kept
        return taken

    later = interleaved({"plain": plain, "ours": again}, repeats)
    session.close()
    initial = interleaved({"plain": plain, "ours": first}, repeats)
    definition = f"wall seconds of InferenceSession(file) / of {{}} through the store, {NAME}, page cache warm"
    return [
        row(
            "weights.load_speedup", definition.format("attaching the weights to a skeleton made before (every load but the first)"),
            baseline=f"plain: {1000 * statistics.median(later['plain']):.1f} ms", unit="x", bar=">= 10",
            ours=ratio(later["plain"], later["ours"])[0], spread=ratio(later["plain"], later["ours"])[1],
            note=f"{1000 * statistics.median(later['ours']):.2f} ms",
        ),
        row(
            "weights.first_load_speedup", definition.format("making the skeleton and attaching (the first load in a process)"),
            baseline=f"plain: {1000 * statistics.median(initial['plain']):.1f} ms", unit="x",
            ours=ratio(initial["plain"], initial["ours"])[0], spread=ratio(initial["plain"], initial["ours"])[1],
            note=f"{1000 * statistics.median(initial['ours']):.2f} ms, nearly all of it the runtime's own set-up of the graph",
        ),
    ]  # fmt: skip


def _running(path: Path, packed: PackedModel, store: WeightStore, repeats: int) -> list[dict[str, Any]]:
    plain = _plain(path)
    feeds = {
        packed.inputs[0].name: np.random.default_rng(0).random((1, *packed.inputs[0].shape[1:])).astype(np.float32)
    }
    with Session(packed, store) as session:
        difference = max(
            float(np.abs(ours - theirs).max())
            for ours, theirs in zip(session.run(feeds), plain.run(None, feeds), strict=True)
        )

        def cpu(work: Any) -> float:
            begin = time.process_time()
            work()
            return time.process_time() - begin

        taken = interleaved(
            {"ours": lambda: cpu(lambda: session.run(feeds)), "plain": lambda: cpu(lambda: plain.run(None, feeds))},
            repeats,
        )
    middle = statistics.median(taken["ours"]) / statistics.median(taken["plain"])
    return [
        row(
            "weights.run_ratio", "CPU seconds of one inference through the store / of the plain session, medians",
            baseline=f"plain: {1000 * statistics.median(taken['plain']):.2f} ms", ours=middle, unit="x", bar="<= 1.03",
        ),
        row(
            "weights.output_difference", "largest absolute difference of any output from the plain session's",
            baseline="plain session", ours=difference, unit="", bar="<= 1e-5",
        ),
    ]  # fmt: skip


def _memory(path: Path, folder: str, count: int) -> int:
    command = [sys.executable, "-c", MEMORY, str(path), folder, str(count)]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _stall(packed: PackedModel, store: WeightStore, repeats: int) -> dict[str, Any]:
    """Inference on one thread while another thread attaches and detaches the same model's twin all the time."""
    feeds = {packed.inputs[0].name: np.zeros((1, *packed.inputs[0].shape[1:]), np.float32)}
    stop = threading.Event()
    twin = Session(packed, store)

    def load_all_the_time() -> None:
        while not stop.is_set():
            twin.attach()
            twin.detach()
            time.sleep(0.02)

    def times(session: Session) -> list[float]:
        taken = []
        for _ in range(repeats):
            begin = time.perf_counter()
            session.run(feeds)
            taken.append(time.perf_counter() - begin)
        return taken

    with Session(packed, store) as session:
        alone = times(session)
        thread = threading.Thread(target=load_all_the_time)
        thread.start()
        beside = times(session)
        stop.set()
        thread.join()
    return row(
        "weights.inference_beside_loads", "median wall seconds of an inference while another thread loads 50 times a second / alone",
        baseline=f"alone: {1000 * statistics.median(alone):.1f} ms",
        ours=statistics.median(beside) / statistics.median(alone), unit="x",
        note=f"95th percentile {1000 * sorted(beside)[int(0.95 * repeats)]:.1f} ms",
    )  # fmt: skip
