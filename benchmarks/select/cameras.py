"""Several cameras on one processor, through the box's own loop on a virtual clock: which models they get.

    python benchmarks/select/cameras.py --full

Two cameras on halves of PETS, one on TUD over and over, one that changes between both; out of step. The ladder is that of
`regimes.py`; the rival is the best of its six models, the same for all cameras, as it is and with the same memory as ours
("remembering"); ours plays without memory, too ("forgetting"). Whose frame is next is the policy's affair: "edf-lru" for all,
and "fifo-lru" for the best single model, too.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from calibrated import thirds  # noqa: E402
from costs import Machine  # noqa: E402
from film import Film, Piece, Shown  # noqa: E402
from harness import row, shared_data  # noqa: E402
from recorded import FUSED, Recording, measured, recordings  # noqa: E402
from regimes import FORGETTING, LOADS, NOT_HELD_OUT, QUICK, REMEMBERING, Fold, ours  # noqa: E402
from video import RAW, REMEMBERED, play_cameras  # noqa: E402

from edgeward.serve.choosers import AnyChooser  # noqa: E402
from edgeward.serve.config import QueryConfig  # noqa: E402
from edgeward.serve.ladder import Ladder  # noqa: E402
from edgeward.serve.modelconfig import members_of  # noqa: E402
from edgeward.serve.rivals import Fixed  # noqa: E402

FIFO = ", first come first served"


def four(films: Mapping[str, Recording], third: int, seconds: Mapping[str, float]) -> tuple[Ladder, dict[str, Film]]:
    """The ladder calibrated on one third of the recordings, and the cameras with the others."""
    fold = Fold.of(films, third, seconds)
    pets, tud = (fold.judged[name] for name in ("PETS", "TUD"))
    frames = np.concatenate([np.array(part) for part in thirds(pets, third)[1]])
    first, second = np.array_split(frames, 2)
    street = [Piece(tud, part.start, part.stop) for part in thirds(tud, third)[1]]
    mixed = [piece for chunk in np.split(first, range(80, len(first), 80)) for piece in (*_runs(pets, chunk), *street)]
    return fold.ladder, {
        "gate": Film.of(_runs(pets, first)),
        "yard": Film.of(_runs(pets, second), begin=0.061),
        "street": Film.of(street * 9, begin=0.013),
        "mixed": Film.of(mixed, begin=0.097),
    }


def _runs(recording: Recording, frames: np.ndarray) -> list[Piece]:
    """Frames as pieces without gaps."""
    parts = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    return [Piece(recording, int(part[0]), int(part[-1]) + 1) for part in parts]


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """Mean streaming AP of four cameras: the joint choice against the best single model under either policy.

    Under each load, and the mean of all loads ("mixed").
    """
    if shared is None:
        return [row("select.cameras", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films, seconds, single = recordings(shared), measured(shared, FUSED), measured(shared)
    parts = [four(films, third, seconds) for third in range(3 if full else 1)]
    tables: dict[str, dict[str, list[float]]] = {}
    for regime in LOADS if full else QUICK:
        for ladder, cameras in parts:
            for name, precision in _played(ladder, cameras, Machine(seconds, LOADS[regime])).items():
                tables.setdefault(regime, {}).setdefault(name, []).append(precision)
    tables["mixed"] = {
        name: [statistics.mean(each) for each in zip(*(table[name] for table in tables.values()), strict=True)]
        for name in next(iter(tables.values()))
    }
    return [line for regime, table in tables.items() for line in _regime_rows(regime, table, tuple(single))]


def _played(ladder: Ladder, cameras: Mapping[str, Film], machine: Machine) -> dict[str, float]:
    """Mean streaming AP of the cameras, by what chooses."""
    arms: dict[str, tuple[AnyChooser, QueryConfig, str]] = {}
    for name in (name for name in machine.seconds if len(members_of(name)) == 1):
        arms[name] = Fixed(name), RAW, "edf-lru"
        arms[name + REMEMBERING] = Fixed(name), REMEMBERED, "edf-lru"
        arms[name + FIFO] = Fixed(name), RAW, "fifo-lru"
    arms["ours"] = ours(ladder), REMEMBERED, "edf-lru"
    arms[FORGETTING] = ours(ladder), RAW, "edf-lru"
    return {
        name: _mean(play_cameras(cameras, dict.fromkeys(cameras, chooser), machine, query, policy))
        for name, (chooser, query, policy) in arms.items()
    }


def _regime_rows(regime: str, table: Mapping[str, list[float]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    means = {name: statistics.mean(each) for name, each in table.items()}
    noted = ", ".join(f"{name} {value:.3f}" for name, value in means.items() if "," not in name)
    rows = []
    kinds = ("best_single", ""), ("best_single_fifo", FIFO), ("best_single_remembering", REMEMBERING)
    for kind, how, arm in (*((*each, "ours") for each in kinds), ("best_single", "", FORGETTING)):
        best = max((name + how for name in names), key=means.__getitem__)
        gains = [100 * (a / b - 1) for a, b in zip(table[arm], table[best], strict=True)]
        who, named = ("which remembers,", "") if arm == "ours" else ("without memory,", "forgetting_")
        rows.append(
            row(
                f"select.cameras.{regime}.{named}over_{kind}",
                f"mean streaming AP@0.5 of four cameras on one processor, latencies {regime}: joint choice, {who}"
                f" over one model for all{how}, less 1; {NOT_HELD_OUT}",
                baseline=f"{best}, {means[best]:.3f}", ours=round(100 * (means[arm] / means[best] - 1), 2),
                unit="%", bar=">= 5", spread=(min(gains), max(gains)),
                note=noted if (kind, arm) == ("best_single", "ours") else "",
            )
        )  # fmt: skip
    return rows


def _mean(shown: Mapping[str, Shown]) -> float:
    until = min(float(each.film.times[-1]) for each in shown.values())
    return statistics.mean(each.precision(0, int(np.searchsorted(each.film.times, until))) for each in shown.values())


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
