"""What all benchmarks share: rows, medians of interleaved runs, one JSON shape.

row("serve.fps_vs_bare", "...", baseline="bare loop", ours=1.02, unit="x", bar=">= 0.95", ...)
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeward.vision.labelled import Labelled

PINNED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's dataset-fashion-mnist (MIT licence) puts its files."""


def pictures_to_learn(shared: Path | None) -> tuple[Labelled, str]:
    """Fashion-MNIST where it is installed, else CIFAR-10 of the shared data; and what they are."""
    from edgeward.errors import SourceError
    from edgeward.vision.labelled import load_labelled

    if FASHION.exists():
        return load_labelled(FASHION / "train-images-idx3-ubyte.gz"), "Fashion-MNIST"
    if shared is not None:
        return load_labelled(shared / "cifar10" / "cifar10_jpeg_train5k.npz"), "CIFAR-10 (JPEG q75), grey"
    raise SourceError("no pictures: install Debian's dataset-fashion-mnist, or set EDGEWARD_DATA")


def row(
    id: str,  # noqa: A002
    definition: str,
    *,
    baseline: str,
    ours: float | None,
    unit: str,
    bar: str = "",
    spread: Sequence[float] = (),
    note: str = "",
) -> dict[str, Any]:
    """One line of a benchmark's table; `met` follows from `bar` (">= 0.95", "<= 60", or none)."""
    met: bool | None = None
    if bar and ours is not None:
        sign, limit = bar.split()[0], float(bar.split()[1])
        met = ours >= limit if sign == ">=" else ours <= limit
    return {
        "id": id,
        "definition": definition,
        "baseline": baseline,
        "paper": None,
        "ours": ours,
        "spread": [round(value, 4) for value in spread],
        "unit": unit,
        "bar": bar,
        "met": met,
        "note": note,
    }


def result(bench: str, full: bool, rows: list[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """The JSON of a whole benchmark."""
    return {
        "bench": bench,
        "mode": "full" if full else "quick",
        "seed": seed,
        "device": device(),
        "load": round(os.getloadavg()[0], 2),
        "versions": versions("edgeward", "onnxruntime", "torch", "numpy", "av", "opencv-python-headless"),
        "rows": rows,
    }


def run_sections(bench: str, full: bool, sections: Mapping[str, Callable[[], list[dict[str, Any]]]]) -> dict[str, Any]:
    """Run the sections in turn, telling progress on standard error; a --full run that was interrupted goes on.

    What is done is kept in `results/.<bench>.partial.json` until the run is complete, and used again only by the same
    versions on the same device.
    """
    kept = Path(__file__).resolve().parent / "results" / f".{bench}.partial.json"
    identity = {key: result(bench, full, [])[key] for key in ("mode", "device", "versions")}
    done: dict[str, Any] = {}
    if full and kept.exists():
        saved = json.loads(kept.read_text())
        done = saved["done"] if saved["identity"] == identity else {}
    for number, (name, section) in enumerate(sections.items(), start=1):
        if name in done:
            continue
        print(f"[{number}/{len(sections)}] {name}", file=sys.stderr, flush=True)
        done[name] = section()
        if full:
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps({"identity": identity, "done": done}))
    kept.unlink(missing_ok=True)
    return result(bench, full, [line for name in sections for line in done[name]])


def device() -> str:
    """Processor and cores in words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def interleaved(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call each of `runs` in turn, `repeats` times; what each returned, in order."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        names = list(runs) if repeat % 2 == 0 else list(runs)[::-1]
        for name in names:
            taken[name].append(runs[name]())
    return taken


def ratio(ours: Sequence[float], baseline: Sequence[float]) -> tuple[float, list[float]]:
    """Median of the ratios of paired runs, with their extremes."""
    ratios = [mine / theirs for mine, theirs in zip(ours, baseline, strict=True)]
    return statistics.median(ratios), [min(ratios), max(ratios)]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time that `work` takes, all threads of this process together."""
    before = time.process_time()
    work()
    return time.process_time() - before


def shared_data() -> Path | None:
    """The folder of real test data, or None."""
    given = os.environ.get("EDGEWARD_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    return folder.resolve() if (folder / "SHA256SUMS").is_file() else None
