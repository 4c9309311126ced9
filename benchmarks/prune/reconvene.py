"""Reconvene's rows: seconds to make a variant, accuracy at equal parameters, latency, and stored bytes.

rows = [*generation(full=True), *latencies(full=True), *accuracies(full=True, shared=shared_data())]
python benchmarks/prune/reconvene.py --full         # resumes
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import torch  # noqa: E402
from harness import interleaved, ratio, row, shared_data  # noqa: E402
from narrow import ABLATED, ABLATION, ARMS, CLAIM, DATA, DEGREES, DENSE, measure, size_at_equal_accuracy, stored  # noqa: E402
from torch import nn  # noqa: E402

from edgeward.prune.criteria import Magnitude  # noqa: E402
from edgeward.prune.mask import Mask  # noqa: E402
from edgeward.prune.reconvene import ReconveneOptions, reconvene  # noqa: E402
from edgeward.prune.scope import select  # noqa: E402
from edgeward.prune.sensitivity import convolutions  # noqa: E402
from edgeward.zoo.reference import build  # noqa: E402

Rows = list[dict[str, Any]]
RESULTS = HERE.parent / "results"
SHAPES = {"vgg16": ("cifar-vgg16", 32), "resnet18": ("resnet18", 224)}
FOURFOLD = {"vgg16": ReconveneOptions(keep=0.42), "resnet18": ReconveneOptions(keep=0.13)}
"""Between four and about five times fewer parameters each."""


def generation(full: bool) -> Rows:
    """Seconds from a network to its smaller one, and how much smaller, for both readings of the average."""
    torch.set_num_threads(1)
    found = []
    for name, (reference, side) in SHAPES.items():
        model, example = build(reference), torch.zeros(1, 3, side, side)
        for reading in ("layer-mean", "weighted"):
            options = ReconveneOptions(keep=0.1, reading=reading)
            runs = [reconvene(model, example, options) for _ in range(5 if full else 1)]
            seconds = [one.seconds for one in runs]
            found.append(
                row(f"reconvene.{name}.{reading}.seconds",
                    f"seconds to make the smaller {reference} at degree 0.9, {side} x {side}, average by {reading}: one thread",
                    baseline="none", ours=statistics.median(seconds), spread=[min(seconds), max(seconds)], unit="s",
                    bar="<= 5", note=f"{_parameters(model) / _parameters(runs[0].module):.2f} x fewer parameters")
            )  # fmt: skip
    return found


def latencies(full: bool) -> Rows:
    """The network with as many weights zeroed as Reconvene's has fewer, against Reconvene's: batch 1, one thread."""
    torch.set_num_threads(1)
    found = []
    for name, (reference, side) in SHAPES.items():
        model, example = build(reference).eval(), torch.randn(1, 3, side, side)
        made = reconvene(model, example, FOURFOLD[name])
        smaller = _parameters(model) / _parameters(made.module)
        alive = Mask.ones(model, convolutions(model))
        zeroed = build(reference).eval()
        mask = select(Magnitude().score(zeroed, [], alive), alive, 1 / smaller, floor=1)
        mask.apply_(zeroed)
        runs = {"zeroed": _timed(zeroed, example), "dense": _timed(model, example)}
        runs["ours"] = _timed(made.module.eval(), example)
        taken = interleaved(runs, 50 if full else 7)
        for rival, bar in (("zeroed", ">= 1.5"), ("dense", "")):
            ours, spread = ratio(taken[rival], taken["ours"])
            found.append(
                row(f"reconvene.{name}.latency_vs_{rival}",
                    f"latency of {reference}, {'its smallest magnitudes 0' if rival == 'zeroed' else 'as it is'} / Reconvene's at "
                    f"as many parameters, {side} x {side}, batch 1, torch, one thread",
                    baseline=f"{rival}, {1e3 * statistics.median(taken[rival]):.1f} ms", ours=ours, spread=spread, unit="x",
                    bar=bar, note=f"{smaller:.2f} x fewer parameters; ours {1e3 * statistics.median(taken['ours']):.1f} ms")
            )  # fmt: skip
        found += _bytes(name, model, made.module, mask)
    return found


def _bytes(name: str, model: nn.Module, small: nn.Module, mask: Mask) -> Rows:
    ours = 4 * _parameters(small)
    return [
        row(f"reconvene.{name}.bytes_vs_{form}",
            f"stored bytes of the {name} with zeros ({text}) / Reconvene's at as many parameters",
            baseline=f"{count} bytes", ours=count / ours, unit="x", note=f"ours {ours} bytes")
        for form, (text, count) in stored(model, mask).items()
    ]  # fmt: skip


def accuracies(full: bool, shared: Path | None) -> Rows:
    """Accuracy after training, every arm at Reconvene's number of parameters; resumes when full."""
    seeds, path = 3 if full else 1, RESULTS / f".prune.reconvene.{'full' if full else 'quick'}.json"
    path.parent.mkdir(exist_ok=True)
    if not full:
        path.unlink(missing_ok=True)
    done = measure(path, seeds, full, shared)
    degrees = DEGREES if full else DEGREES[-1:]
    where = f"VGG of 8 convolutions on {done['data']}, {DATA}, {seeds} seeds"

    def values(arm: str, degree: float, what: str = "accuracy") -> list[float]:
        return [done["cells"][f"{seed}/{arm}/{degree}"][what] for seed in range(seeds)]

    dense = [done["cells"][f"{seed}/{DENSE}"]["accuracy"] for seed in range(seeds)]
    rows = [
        row("reconvene.dense", f"top-1 % of the dense network: {where}", baseline="none", unit="%", **_percent(dense))
    ]
    for degree in degrees:
        for arm, text in ARMS.items():
            count = statistics.fmean(values(arm, degree, "parameters"))
            rows.append(
                row(f"reconvene.{degree}.accuracy.{arm}", f"top-1 % of {text}, degree {degree}: {where}", baseline="dense",
                    unit="%", note=f"{count:.0f} parameters that are not 0", **_percent(values(arm, degree)))
            )  # fmt: skip
            if arm != "reconvene":
                rows.append(_gap(arm, degree, values, where))
    rows += _ablation(values, where) if ABLATED in degrees else []
    pairs = [(degree, values("reconvene", degree), values("magnitude-degree", degree)) for degree in degrees]
    sizes = {degree: values("reconvene", degree, "ratio") for degree in degrees}
    return [*rows, *size_at_equal_accuracy(pairs, sizes, where, CLAIM)]


BARS = {"magnitude": ">= -1", "synflow": ">= -1", "uniform": ">= 0"}


def _gap(arm: str, degree: float, values: Callable[..., list[float]], where: str) -> dict[str, Any]:
    gaps = [
        100 * (ours - theirs) for ours, theirs in zip(values("reconvene", degree), values(arm, degree), strict=True)
    ]
    return row(
        f"reconvene.{degree}.points_over.{arm}", f"top-1 points of Reconvene above {ARMS[arm]}, degree {degree}: {where}",
        baseline=arm, ours=statistics.fmean(gaps), spread=[min(gaps), max(gaps)], unit="points", bar=BARS.get(arm, ""),
    )  # fmt: skip


def _ablation(values: Callable[..., list[float]], where: str) -> Rows:
    found = []
    for arm, options in ABLATION.items():
        told = ", ".join(f"{name} {value}" for name, value in options.items())
        text = f"top-1 % of Reconvene with {told}, brought to as many parameters as it has at degree {ABLATED}: {where}"
        reached = [one for one in values(arm, ABLATED) if one is not None]
        figures = _percent(reached) if reached else {"ours": None}
        sizes = [f"{one:.0f}" for one in values(arm, ABLATED, "parameters") if one is not None]
        note = f"parameters: {', '.join(sizes) or 'no pruning degree makes it so small'}"
        found.append(row(f"reconvene.ablation.{arm}", text, baseline="reconvene", unit="%", note=note, **figures))
    return found


def _percent(values: list[float]) -> dict[str, Any]:
    return {"ours": 100 * statistics.fmean(values), "spread": [100 * min(values), 100 * max(values)]}


def _parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def _timed(module: nn.Module, example: torch.Tensor) -> Callable[[], float]:
    def run() -> float:
        with torch.inference_mode():
            started = time.perf_counter()
            module(example)
            return time.perf_counter() - started

    run()
    return run


if __name__ == "__main__":
    full_run = "--full" in sys.argv
    for one in [*generation(full_run), *latencies(full_run), *accuracies(full_run, shared_data())]:
        print(
            f"{one['id']:50} {one['ours'] or 0:10.4g} {one['unit']:7}",
            one["bar"],
            one["met"],
            one["note"],
            one["spread"],
        )
