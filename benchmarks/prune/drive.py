"""DRIVE's rows: what a mask costs beside iterative magnitude pruning, and how accurate networks are under it.

rows = masks(full=True, shared=shared_data())
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from early import LEARN, METHODS, SEEDS, ablation, measure  # noqa: E402
from harness import row, shared_data  # noqa: E402

Rows = list[dict[str, Any]]
OURS, DECISIVE = "drive:d5 @1 x20", "snip @1 x20"
RIVALS = ("snip @0 one-shot", "snip @0 x20", "synflow @0 x100", "synflow @0 one-shot")
RESULTS = HERE.parent / "results"


def masks(full: bool, shared: Path | None) -> Rows:
    """Cost and accuracy of every method at 90, 95, 98 and 99 % sparsity; the ablation at 98 %. Resumes when full."""
    seeds = SEEDS if full else 1
    path = RESULTS / f".prune.early.{'full' if full else 'quick'}.partial.json"
    path.parent.mkdir(exist_ok=True)
    if not full:
        path.unlink(missing_ok=True)
    done = measure(path, seeds, full, shared)
    cells = done["cells"]
    where = (
        f"MLP 100-200-100-64-10 with batch norms on {done['data']} at 8 x 8 on a noisy 10 x 10 canvas, {LEARN} to learn from, "
        f"{done['test']} to test, {20 if full else 2} epochs of final training for all, {seeds} seeds"
    )
    keeps = [str(keep) for keep in ((0.1, 0.05, 0.02, 0.01) if full else (0.1, 0.01))]
    names = ["imp", *(method.name for method in METHODS)]

    def values(name: str, keep: str, what: str) -> list[float]:
        found = [cells[f"{seed}/{name}"][keep][what] for seed in range(seeds)]
        return [one for one in found if one is not None]

    rows = [
        row("drive.dense", f"top-1 % of the dense network: {where}", baseline="none", unit="%", **_percent(values("imp", "1.0", "accuracy")))
    ]  # fmt: skip
    for keep in keeps:
        rows += _costs(keep, where, values, full)
        rows += _accuracies(keep, names, where, values)
    if full:
        rows += _ablation(cells, seeds, where)
    return [*rows, _protocol()]


def _costs(keep: str, where: str, values: Callable[[str, str, str], list[float]], full: bool) -> Rows:
    """The bars are for 99 % and trainings of full length."""
    found = []
    last = full and keep == "0.01"
    for what, text, bar in (
        ("epochs", "training epochs", 40 if last else None),
        ("equivalents", "epochs, each scored example counted as one trained", 20 if last else None),
        ("seconds", "seconds", None),
    ):
        ours, theirs = values(OURS, keep, what), values("imp", keep, what)
        ratios = [a / b for a, b in zip(theirs, ours, strict=False)]
        found.append(
            row(
                f"drive.{keep}.{what}_vs_imp",
                f"{text} to obtain the mask that keeps {keep}, IMP / DRIVE: {where}",
                baseline=f"IMP, {_mean(theirs):.4g}",
                ours=_mean(ratios),
                spread=_range(ratios),
                unit="x",
                bar=f">= {bar}" if bar else "",
                note=f"DRIVE {_mean(ours):.3g} {what}",
            )
        )
    return found


def _accuracies(keep: str, names: list[str], where: str, values: Callable[[str, str, str], list[float]]) -> Rows:
    found = []
    for name in names:
        costs = {what: values(name, keep, what) for what in ("seconds", "epochs", "equivalents")}
        told = ", ".join(f"{_mean(one):.3g} {what}" for what, one in costs.items() if one)
        collapsed = int(sum(values(name, keep, "collapsed")))
        spread = 100 * statistics.pstdev(values(name, keep, "accuracy"))
        note = f"mask: {told or 'none'}; std {spread:.2f}; {_mean(values(name, keep, 'dead')):.0f} of 364 units dead; {collapsed} collapsed"
        found.append(
            row(f"drive.{keep}.accuracy.{name}", f"top-1 % with a share of {keep} kept: {where}", baseline="dense",
                unit="%", note=note, **_percent(values(name, keep, "accuracy")))
        )  # fmt: skip
    for rival in (*RIVALS, DECISIVE, "imp"):
        gaps = [
            100 * (a - b) for a, b in zip(values(OURS, keep, "accuracy"), values(rival, keep, "accuracy"), strict=True)
        ]
        found.append(
            row(f"drive.{keep}.points_over.{rival}", f"top-1 points of DRIVE (d5) above it with a share of {keep} kept: {where}",
                baseline=rival, ours=_mean(gaps), spread=_range(gaps), unit="points", bar=">= 0" if rival in RIVALS else "",
                note=_error(gaps))
        )  # fmt: skip
    return found


def _ablation(cells: dict[str, Any], seeds: int, where: str) -> Rows:
    found = []
    for method in ablation():
        accuracy = [cells[f"ablation/{seed}/{method.name}"]["0.02"]["accuracy"] for seed in range(seeds)]
        found.append(
            row(f"drive.ablation.{method.name}", f"top-1 % at 2 % kept; @ epochs of warm-up, x pruning steps: {where}",
                baseline=DECISIVE, unit="%", **_percent(accuracy))
        )  # fmt: skip
    return found


def _protocol() -> dict[str, Any]:
    """The paper's ratio as what it is: a count."""
    equivalents = 5 + 20 * 512 / 50_000
    return row(
        "drive.protocol",
        "epochs IMP / DRIVE counted, not run: levels x epochs / (warm-up + scoring) for 18 levels of 20 % (98.2 % sparsity) of "
        "160 epochs on 50,000 pictures, 5 epochs of warm-up and 20 batches of 512 scored (paper: 43 to 869 x, protocol unpublished)",
        baseline="IMP, 2880 epochs", ours=18 * 160 / equivalents, unit="x",
        note=f"43 x is 2 levels, 869 x about {869 * equivalents / 160:.0f} levels with these; every method of a few epochs has this ratio",
    )  # fmt: skip


def scoring(full: bool) -> Rows:
    """Seconds and memory of scores of ResNet-50."""
    from scoring import CRITERIA, peak_bytes, seconds

    batch = 16 if full else 4
    chosen = CRITERIA if full else CRITERIA[:2]
    taken = seconds(batch, 2 if full else 1, chosen)
    base = peak_bytes("plain", batch)
    where = f"ResNet-50, {batch} pictures of 224 x 224, one thread, best of {2 if full else 1}"
    found = []
    for name in chosen:
        peak = peak_bytes(name, batch)
        found += [
            row(f"drive.scoring.{name}", f"seconds of one score / seconds of a plain forward and backward: {where}",
                baseline=f"plain, {taken['plain']['seconds']:.3g} s", ours=taken[name]["ratio"], unit="x",
                bar="<= 1.3" if name in ("drive:d5", "snip") else "", note=f"{taken[name]['seconds']:.3g} s"),
            row(f"drive.scoring.{name}.memory", f"peak resident memory of a process that scores once / that does a plain pass once: {where}",
                baseline=f"plain, {base / 2**20:.0f} MiB", ours=peak / base, unit="x", note=f"{peak / 2**20:.0f} MiB"),
        ]  # fmt: skip
    return found


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _range(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def _error(gaps: list[float]) -> str:
    """The standard error of their mean, in words; none for a single pair."""
    return f"standard error {statistics.stdev(gaps) / len(gaps) ** 0.5:.2f}" if len(gaps) > 1 else ""


def _percent(values: list[float]) -> dict[str, Any]:
    return {"ours": 100 * _mean(values), "spread": [100 * one for one in _range(values)]}


if __name__ == "__main__":
    full_run = "--full" in sys.argv
    for line in [*masks(full_run, shared_data()), *scoring(full_run)]:
        print(line["id"], line["ours"] and round(line["ours"], 3), line["unit"], line["bar"], line["met"], line["note"])
