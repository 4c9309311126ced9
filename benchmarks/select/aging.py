"""How long the boxes of each rung stay right by truth, and whether how well they fit tells it.

    python benchmarks/select/aging.py --full

A rung's boxes are judged on frames that came up to so many frames later. What differs between rungs is compared with
what the staleness curve makes of it, once with each rung's own fit and once with the ladder's mean
(`edgeward.serve.elsewhere`); the pace of motion is the one that explains the rungs' mean best. Ladders are calibrated on
one third of the recordings, boxes judged on the other two.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from calibrated import thirds  # noqa: E402
from film import judged_boxes, pooled  # noqa: E402
from harness import row, shared_data  # noqa: E402
from recorded import FUSED, Recording, measured, recordings  # noqa: E402
from regimes import Fold  # noqa: E402

from edgeward.serve.staleness import Motion  # noqa: E402

AGES = {"PETS": (1, 2), "TUD": (4, 6)}
"""Frames after which a part of the boxes is wrong, but not most of them: people at 7 and at 25 frames a second."""
RATES = np.geomspace(1e-5, 1.0, 2000)


def shares_kept(recording: Recording, rung: str, parts: list[range], ages: tuple[int, ...]) -> list[float]:
    """Average precision of boxes of each age over that of fresh ones, on the same frames."""
    frames = [index for part in parts for index in part[max(ages) :]]
    precise = [
        pooled([judged_boxes(recording.boxes[rung][index - age], recording.truth.at(index)) for index in frames])
        for age in (0, *ages)
    ]
    return [each / precise[0] for each in precise[1:]]


def curve(fits: np.ndarray, age: int, mean: float) -> np.ndarray:
    """What the staleness curve says each rung keeps, at the pace at which their mean is as given."""
    kept = np.stack([Motion().kept(RATES, np.array([float(age)]), float(fit))[:, 0] for fit in fits], axis=1)
    return np.asarray(kept[np.abs(kept.mean(axis=1) - mean).argmin()])


def apart(kept: np.ndarray) -> np.ndarray:
    """By how much more or less than others each rung keeps, in logarithms."""
    return np.asarray(np.log(kept) - np.log(kept).mean())


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """By recording and age. Quick: one third calibrates instead of each in turn."""
    if shared is None:
        return [row("select.aging", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films, seconds = recordings(shared), measured(shared, FUSED)
    errors: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for third in range(3 if full else 1):
        fold = Fold.of(films, third, seconds)
        fits = np.array([rung.fit for rung in fold.ladder.rungs])
        for name, ages in AGES.items():
            film, parts = fold.judged[name], thirds(fold.judged[name], third)[1]
            kept = np.array([shares_kept(film, rung.name, parts, ages) for rung in fold.ladder.rungs])
            for age, real in zip(ages, kept.T, strict=True):
                own = apart(curve(fits, age, float(real.mean())))
                tells = float(np.corrcoef(fits, np.log(real))[0, 1])
                found = tuple(float(np.sqrt(np.mean((apart(real) - told) ** 2))) for told in (own, 0.0))
                errors.setdefault((name, age), []).append((*found, tells))
    return [_line(name, age, each) for (name, age), each in errors.items()]


def _line(name: str, age: int, found: list[tuple[float, float, float]]) -> dict[str, Any]:
    own, common, tells = (statistics.mean(each) for each in zip(*found, strict=True))
    return row(
        f"select.aging.{name.lower()}.{age}",
        f"error of what ten rungs keep of their accuracy on {name} after {age} frames, relative to each other: the same"
        " for all, against by each one's own fit",
        baseline=f"own fits, {100 * own:.1f}", ours=round(100 * common, 2), unit="%", bar=f"<= {100 * own:.2f}",
        note=f"root mean square; correlation of the fit with what is kept {tells:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
