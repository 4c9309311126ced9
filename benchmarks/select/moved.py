"""Forecast under every load: boxes followed and moved to the present, as a box shows them on request.

    python benchmarks/select/moved.py --full

"A fast detector with a tracker's forecast" is a rival of every choice: each arm is given the forecast, and ours is also
compared with itself without. Boxes are followed in all arms, so that they differ by the forecast alone.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from costs import Machine  # noqa: E402
from film import Shown, pooled  # noqa: E402
from harness import row, shared_data  # noqa: E402
from recorded import FUSED, Recording, measured, recordings  # noqa: E402
from regimes import LOADS, NOT_HELD_OUT, Fold, Seconds, ours  # noqa: E402
from video import MOVED, TRACKED, play  # noqa: E402

from edgeward.serve.modelconfig import members_of  # noqa: E402
from edgeward.serve.rivals import Fixed  # noqa: E402

Table = dict[str, dict[str, list[Shown]]]
OURS, STILL = "ours", "ours, not moved"


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """Ours with forecast over the best fixed model with forecast, and over ours without."""
    if shared is None:
        return [row("select.moved", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films, seconds = recordings(shared), measured(shared, FUSED)
    table = _played(films, seconds, full)
    figures = {
        regime: {name: [shown.precision() for shown in each] for name, each in by_name.items()}
        for regime, by_name in table.items()
    }
    if full:
        figures["mixed"] = _mixed(table)
    return [line for regime, each in figures.items() for line in _regime_rows(regime, each, seconds)]


def _played(films: Mapping[str, Recording], seconds: Seconds, full: bool) -> Table:
    table: Table = {}
    for third in range(3 if full else 1):
        fold = Fold.of(films, third, seconds)
        for regime in LOADS if full else ("3x",):
            machine, by_name = Machine(seconds, LOADS[regime]), table.setdefault(regime, {})
            for name in seconds:
                by_name.setdefault(name, []).append(play(fold.film, Fixed(name), machine, MOVED))
            by_name.setdefault(OURS, []).append(play(fold.film, ours(fold.ladder), machine, MOVED))
            by_name.setdefault(STILL, []).append(play(fold.film, ours(fold.ladder), machine, TRACKED))
    return table


def _mixed(table: Table) -> dict[str, list[float]]:
    """All loads one after another."""
    names, folds = table["1x"], range(len(table["1x"][OURS]))
    return {
        name: [pooled([part for each in table.values() for part in each[name][fold].judged()]) for fold in folds]
        for name in names
    }


def _regime_rows(regime: str, figures: Mapping[str, list[float]], seconds: Seconds) -> list[dict[str, Any]]:
    means = {name: statistics.mean(each) for name, each in figures.items()}
    best = max((name for name in seconds if len(members_of(name)) == 1), key=means.__getitem__)
    rows = []
    for kind, rival in (("best_fixed", best), ("not_moved", STILL)):
        gains = [100 * (a / b - 1) for a, b in zip(figures[OURS], figures[rival], strict=True)]
        rows.append(
            row(
                f"select.moved.{regime}.over_{kind}",
                f"streaming AP@0.5 of followed boxes, moved by forecast, latencies {regime}: ours over"
                f" {'the best fixed model, moved, too' if rival == best else 'ours without forecast'}, less 1; {NOT_HELD_OUT}",
                baseline=f"{rival}, {means[rival]:.3f}", ours=round(100 * (means[OURS] / means[rival] - 1), 2), unit="%",
                bar=">= 0", spread=(min(gains), max(gains)),
                note=", ".join(f"{name} {value:.3f}" for name, value in means.items()) if rival == best else "",
            )
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
