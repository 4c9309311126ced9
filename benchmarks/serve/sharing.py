"""Four cameras and four models in half the memory they need, on the wall clock and on the virtual one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import row

from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import Decided, Loaded
from edgeward.serve.log import Recording, read_log
from edgeward.serve.replay import replay

MODELS = ("ssdlite-person", "efficientnet-lite0", "mobilenetv2-embedder")


def rows(full: bool) -> list[dict[str, Any]]:
    """Waits for loads of others, wall against virtual clock, exactness of replay."""
    with tempfile.TemporaryDirectory() as folder:
        total = _total_bytes(Path(folder))
        recording = _record(Path(folder), total // 2, seconds=60 if full else 8)
        same = replay(recording, "edf-lru")
        virtual = replay(recording, "edf-lru", costs="median")
        static = replay(recording, "edf-static", costs="median")
    wall, simulated = same.recorded.in_time_fraction or 0.0, virtual.replayed.in_time_fraction or 0.0
    setting = f"4 cameras, 4 models of {total} bytes, budget half of that, {same.recorded.seconds:.0f} s"
    loads = f"{same.recorded.loads_per_hour:.0f} loads per hour"
    return [
        row(
            "sharing.waits_for_other_loads",
            f"moments at which a frame waits for a resident model, the processor idles and another model loads; {setting}",
            baseline="0", ours=float(waits_for_other_loads(recording)), unit="count", bar="<= 0", note=loads,
        ),
        row(
            "sharing.in_time", f"frames answered in time / frames due; {setting}",
            baseline=f"edf-static (never swaps) on the virtual clock: {static.replayed.in_time_fraction or 0.0:.3f}",
            ours=wall, unit="fraction",
        ),
        row(
            "sharing.virtual_vs_wall", "|in-time fraction on the virtual clock with median costs / on the wall clock - 1|",
            baseline="the wall clock", ours=abs(simulated / wall - 1) if wall else None, unit="fraction", bar="<= 0.05",
        ),
        row(
            "sharing.replay_exact", "1 when a replay with recorded costs repeats every decision at the same nanosecond",
            baseline=f"{same.recorded.decisions} recorded decisions", ours=float(same.identical), unit="", bar=">= 1",
        ),
    ]  # fmt: skip


def waits_for_other_loads(recording: Recording) -> int:
    """Counts, over the recorded states, those in which a load keeps a ready frame from the idle processor."""
    state, count = recording.state, 0
    events = recording.events
    for event, following in zip(events, (*events[1:], None), strict=True):
        state = apply(state, event)
        # While decisions follow at the same moment, the policy has not finished with this state.
        if isinstance(following, Decided) or isinstance(event, Loaded):
            continue
        ready = any(
            query.jobs and state.models[query.spec.model].status == "resident" for query in state.queries.values()
        )
        count += ready and state.loader is not None and state.processor is None
    return count


def _config(folder: Path, budget: int) -> str:
    cameras = "\n".join(
        f"  - {{name: c{i}, source: 'test://people?seed={i}&fps=10&width=320&height=240&frames=100000'}}"
        for i in range(4)
    )
    models = "\n".join(f"  - {{name: m{i}, use: {name}}}" for i, name in enumerate(MODELS))
    # The fourth model: the same architecture with weights of its own.
    models += f"\n  - {{name: m3, file: '{_variant(folder)}', convention: ssd, labels: [person]}}"
    queries = "\n".join(f"  - {{camera: c{i}, model: m{i}, deadline: 0.2}}" for i in range(4))
    return (
        f"cameras:\n{cameras}\nmodels:\n{models}\nqueries:\n{queries}\nbudget: {{memory: {budget}, threads: 1}}\n"
        f"data: '{folder}/data'\n"
    )


def _variant(folder: Path) -> Path:
    """The person detector with weights slightly changed, so that no tensor is shared."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from edgeward.serve.models import default_cache
    from edgeward.zoo.export import portable_onnx

    path = folder / "variant.onnx"
    if not path.exists():
        source, _ = portable_onnx("ssdlite-person", None, default_cache() / "models")
        model = onnx.load(source)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.size > 16:
                tensor.CopyFrom(numpy_helper.from_array(array * np.float32(1.0001), tensor.name))
        onnx.save(model, path)
    return path


def _total_bytes(folder: Path) -> int:
    box = Box(parse_config(_config(folder, 1 << 30), "benchmark"))
    box.close()
    return sum(model.spec.bytes for model in box.models.values())


def _record(folder: Path, budget: int, seconds: float) -> Recording:
    with Box(parse_config(_config(folder, budget), "benchmark")) as box:
        box.run(seconds)
    return read_log(folder / "data/log")[-1]
