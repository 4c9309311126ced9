"""Forecast under every load: boxes followed and moved to the present, as a box shows them on request.

    python benchmarks/select/moved.py --full

"A fast detector with a tracker's forecast" is a rival of every choice: each arm is given the forecast, and ours is also
compared with itself without. Boxes are followed in all arms. Ours remembers; the best fixed model is there with and
without memory.
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
from regimes import LOADS, NOT_HELD_OUT, REMEMBERING, Fold, Seconds, ours  # noqa: E402
from video import MOVED, TRACKED, play  # noqa: E402

from edgeward.serve.modelconfig import members_of  # noqa: E402
from edgeward.serve.rivals import Fixed  # noqa: E402

Table = dict[str, dict[str, list[Shown]]]
OURS, STILL = "ours", "ours, not moved"
MEMORY = {"remember": True}


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
                for memory, changed in (("", {}), (REMEMBERING, MEMORY)):
                    query = MOVED.model_copy(update=changed)
                    by_name.setdefault(name + memory, []).append(play(fold.film, Fixed(name), machine, query))
            for name, query in ((OURS, MOVED), (STILL, TRACKED)):
                query = query.model_copy(update=MEMORY)
                by_name.setdefault(name, []).append(play(fold.film, ours(fold.ladder), machine, query))
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
    single = [name for name in seconds if len(members_of(name)) == 1]
    best = max(single, key=means.__getitem__)
    remembering = max((name + REMEMBERING for name in single), key=means.__getitem__)
    rows = []
    for kind, rival in (("best_fixed", best), ("best_fixed_remembering", remembering), ("not_moved", STILL)):
        gains = [100 * (a / b - 1) for a, b in zip(figures[OURS], figures[rival], strict=True)]
        rows.append(
            row(
                f"select.moved.{regime}.over_{kind}",
                f"streaming AP@0.5 of followed boxes, moved by forecast, latencies {regime}: ours, which remembers, over"
                f" {'ours without forecast' if rival == STILL else 'the best fixed model, moved, too'}, less 1; {NOT_HELD_OUT}",
                baseline=f"{rival}, {means[rival]:.3f}", ours=round(100 * (means[OURS] / means[rival] - 1), 2), unit="%",
                bar=">= 0", spread=(min(gains), max(gains)),
                note=", ".join(f"{name} {value:.3f}" for name, value in means.items()) if rival == best else "",
            )
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
