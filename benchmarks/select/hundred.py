"""A hundred small synthetic worlds: whether ours comes first in most of them, and by how much.

    python benchmarks/select/hundred.py --full

Each world has three of the eight scenes, by lot. Rivals are tuned in other worlds; see `simulator.py`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from harness import row  # noqa: E402
from simulator import REGIMES, ours, play, rivals  # noqa: E402
from world import World  # noqa: E402

FIRST, SCENES = 1000, 3


def rows(full: bool) -> list[dict[str, Any]]:
    """By load, of 100 worlds, or of 10."""
    arms = {"ours": ours(), **rivals()}
    table: dict[str, dict[str, list[float]]] = {regime: {name: [] for name in arms} for regime in REGIMES}
    for seed in range(100 if full else 10):
        world = World(FIRST + seed, drawn=SCENES)
        for regime, load in REGIMES.items():
            for name, chooser in arms.items():
                table[regime][name].append(play(world, chooser, load).precision(world))
    return [line for regime, played in table.items() for line in _rows(regime, played)]


def _rows(regime: str, played: dict[str, list[float]]) -> list[dict[str, Any]]:
    mine = played["ours"]
    means = {name: statistics.mean(values) for name, values in played.items()}
    best = max((name for name in played if name != "ours"), key=means.__getitem__)
    others = [max(each) for each in zip(*(values for name, values in played.items() if name != "ours"), strict=True)]
    gains = [100 * (a / b - 1) for a, b in zip(mine, played[best], strict=True)]
    what = f"AP@0.5 (11-point) on screen, {len(mine)} worlds of {SCENES} scenes drawn by lot, latencies {regime}"
    return [
        row(
            f"select.hundred.{regime}.over_best_rival",
            f"mean {what}: ours over the rival with the best mean, less 1; spread: single worlds",
            baseline=f"{best}, {means[best]:.3f}", ours=round(100 * (means["ours"] / means[best] - 1), 2), unit="%",
            bar=">= 0", spread=(min(gains), max(gains)),
            note=", ".join(f"{name} {value:.3f}" for name, value in means.items()),
        ),
        row(
            f"select.hundred.{regime}.ahead",
            f"worlds in which ours is ahead of that rival; {what}",
            baseline=f"{best}; each world's own best rival, chosen afterwards, is beaten in"
            f" {sum(a > b for a, b in zip(mine, others, strict=True))}",
            ours=100 * sum(gain > 0 for gain in gains) / len(gains), unit="% of worlds", bar=">= 50",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    for line in rows("--full" in sys.argv):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
