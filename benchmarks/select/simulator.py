"""Choosing a detector in synthetic worlds: every chooser on the same worlds, on a discrete-event clock.

    python benchmarks/select/simulator.py --full

Constants of the worlds: see `world.py`. Frames that arrive while a detector works are dropped; an answer to frame f that
takes n frames is on screen from f + n until the next, from f itself when n is 1. The figure is the 11-point average
precision at an IoU of 0.5 of what is on screen, pooled over all frames.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from harness import row  # noqa: E402
from world import FPS, FRAMES, NAMES, OBJECTS, PIXELS, SHAPE, Twist, World, eleven_point, ladder  # noqa: E402

from edgeward.serve.choice import Answer, Chooser  # noqa: E402
from edgeward.serve.rivals import Fixed, Oracle, Periodic, Random, RoundRobin, Thresholds  # noqa: E402
from edgeward.serve.rules import Rules  # noqa: E402
from edgeward.serve.selection import Selector  # noqa: E402
from edgeward.serve.staleness import Motion  # noqa: E402

Load = Callable[[int], float]
REGIMES: dict[str, Load] = {
    "1x": lambda frame: 1.0,
    "2x": lambda frame: 2.0,
    "changing": lambda frame: (1.0, 3.0, 1.6)[frame % FRAMES * 3 // FRAMES],
    "0.4x": lambda frame: 0.4,
}
TWISTS = {
    "finds_less": Twist(mid=1.3, top=0.9),
    "finds_more": Twist(mid=0.8),
    "uneven_pace": Twist(wander=0.6),
    "large_models_slower": Twist(slow=(1.0, 1.0, 1.3, 1.6)),
}
TUNING = (901, 902, 903)
"""Seeds of the worlds in which rivals are tuned, at the nominal load; our constants were set in worlds 0 to 5."""
FIRST = 100
"""First seed of the worlds that are judged, in which nothing was tuned."""
TWISTED = 20
"""Worlds of each twist: the least of four gains says little of five."""
WINDOWS = (1, 2, 6)
"""Seconds for which the oracle keeps one model; of the three schedules it takes the best."""


@dataclass(frozen=True)
class Shown:
    """What was on screen at each frame: (model, frame it was made from), None before the first answer."""

    frames: tuple[tuple[str, int] | None, ...]
    switches: int

    def precision(self, world: World, first: int = 0, last: int | None = None) -> float:
        span = range(first, world.frames if last is None else last)
        judged = [world.judged(*shown, frame) for frame in span if (shown := self.frames[frame])]
        if not judged:
            return 0.0
        scores, right = (np.concatenate(column) for column in zip(*judged, strict=True))
        return eleven_point(scores, right, len(span) * OBJECTS)


def play(world: World, chooser: Chooser, load: Load) -> Shown:
    """One chooser through one world."""
    shown: list[tuple[str, int] | None] = [None] * world.frames
    frame, switches, last = 0, 0, ""
    while frame < world.frames:
        start = now = frame / FPS
        choice = chooser.choice(now)
        chooser = chooser.taken(choice, now)
        for name in (*choice.also, choice.name):
            seconds = world.seconds(name, load(frame))
            now += seconds
            chooser = chooser.observe(Answer(name, start, world.boxes(name, frame)), now, seconds)
        frames = max(1, math.ceil((now - start) * FPS - 1e-6))
        from_frame = frame if frames == 1 else frame + frames
        shown[from_frame:] = [(choice.name, frame)] * (world.frames - from_frame)
        switches += choice.name != last
        last, frame = choice.name, frame + frames
    return Shown(tuple(shown), switches - 1)


def oracle(world: World, fixed: Mapping[str, Shown], load: Load) -> float:
    """The best of three schedules that labels would have chosen from what each model alone had on screen."""
    found = []
    for window in WINDOWS:
        starts = range(0, world.frames, window * FPS)
        best = [max(NAMES, key=lambda name: fixed[name].precision(world, at, at + window * FPS)) for at in starts]
        found.append(play(world, Oracle(tuple(at / FPS for at in starts), tuple(best)), load).precision(world))
    return max(found)


def ours(motion: Motion | None = None, **changed: Any) -> Selector:
    rules = Rules(FPS, PIXELS, PIXELS, motion=motion or Motion())
    return Selector.start(ladder(), replace(rules, **changed))


def ablations() -> dict[str, Chooser]:
    return {
        "raw histogram": ours(debias=False),
        "one retention for all sizes": ours(Motion("all")),
        "fixed retention": ours(Motion("fixed")),
        "retention as beta, per size": ours(Motion("bin", "decay")),
        "retention as beta, one": ours(Motion("all", "decay")),
        "fixed beta 0.95": ours(Motion("fixed", "decay", 0.95)),
        "no hysteresis": ours(margin=0.0, dwell=0.0),
        "no probing": ours(probe_share=0.0),
    }


def thresholds(worlds: list[World]) -> Thresholds:
    """TOD with the best of 10 sets of thresholds, the published one among them, at the nominal load."""
    sets = [
        (high, middle, low)
        for high in (0.16, 0.2, 0.25)
        for middle, low in ((0.12, 0.08), (0.14, 0.09), (0.1, 0.06))
        if high > middle
    ] + [(0.3, 0.16, 0.1)]
    tried = [Thresholds(NAMES, tuple(SHAPE * each for each in found), PIXELS, PIXELS) for found in sets]
    return max(tried, key=lambda each: _mean(worlds, each, REGIMES["1x"]))


def periodic(worlds: list[World]) -> Periodic:
    """Chameleon with the best of nine settings, at the nominal load."""
    tried = [Periodic(NAMES, period, target) for period in (2.0, 4.0, 8.0) for target in (0.5, 0.65, 0.8)]
    return max(tried, key=lambda each: _mean(worlds, each, REGIMES["1x"]))


@functools.cache
def rivals() -> Mapping[str, Chooser]:
    tuning = [World(seed) for seed in TUNING]
    fixed: dict[str, Chooser] = {name: Fixed(name) for name in NAMES}
    learned: dict[str, Chooser] = {"TOD-like": thresholds(tuning), "Chameleon-like": periodic(tuning)}
    return fixed | learned | {"random": Random(NAMES), "round robin": RoundRobin(NAMES)}


def worlds(full: bool) -> list[dict[str, Any]]:
    """Rows of all regimes; of ablations and twisted worlds in full only, as one or two worlds tell nothing of them."""
    others = rivals()
    table = _table([World(FIRST + seed) for seed in range(10 if full else 2)], others, ablations() if full else {})
    rows = [line for name, played in table.items() for line in _regime_rows(name, played, others)]
    rows += _ablation_rows(table) if full else []
    for name, twist in TWISTS.items() if full else ():
        twisted = _table([World(FIRST + seed, twist) for seed in range(TWISTED)], others, {})
        rows.append(_twist_row(name, twisted, others))
    return rows


Played = dict[str, list[float]]


def _table(seeds: list[World], others: Mapping[str, Chooser], variants: Mapping[str, Chooser]) -> dict[str, Played]:
    """Average precision of each chooser in each world, by regime."""
    table: dict[str, Played] = {}
    for regime, load in REGIMES.items():
        played: Played = {}
        for world in seeds:
            fixed = {name: play(world, others[name], load) for name in NAMES}
            for name, shown in fixed.items():
                played.setdefault(name, []).append(shown.precision(world))
            for name, chooser in ({"ours": ours()} | {**others, **variants}).items():
                if name not in fixed:
                    played.setdefault(name, []).append(play(world, chooser, load).precision(world))
            played.setdefault("oracle", []).append(oracle(world, fixed, load))
        table[regime] = played
    return table


def _regime_rows(regime: str, played: Played, others: Mapping[str, Chooser]) -> list[dict[str, Any]]:
    means = {name: statistics.mean(values) for name, values in played.items()}
    best = max(others, key=means.__getitem__)
    named = ", ".join(f"{name} {means[name]:.3f}" for name in ("ours", *others, "oracle"))
    what = f"AP@0.5 (11-point) on screen, {len(played['ours'])} worlds, latencies {regime}"

    def gain(rival: str, bar: str, note: str = "") -> dict[str, Any]:
        each = [100 * (a / b - 1) for a, b in zip(played["ours"], played[rival], strict=True)]
        name = rival.split("-")[0].lower() if rival in ("TOD-like", "Chameleon-like") else "best_rival"
        return row(
            f"select.worlds.{regime}.over_{name}",
            f"mean {what}: ours over the rival's, less 1; spread: single worlds",
            baseline=f"{rival}, {means[rival]:.3f}",
            ours=round(100 * (means["ours"] / means[rival] - 1), 2), unit="%", bar=bar, spread=(min(each), max(each)),
            note=note,
        )  # fmt: skip

    return [
        gain(best, ">= 0", named) | {"id": f"select.worlds.{regime}.over_best_rival"},
        gain("TOD-like", ">= 0"),
        row(
            f"select.worlds.{regime}.regret",
            f"mean {what}: of the best of three schedules made from labels, less ours",
            baseline=f"oracle, {means['oracle']:.3f}", ours=round(means["oracle"] - means["ours"], 4), unit="AP",
            bar=">= 0", spread=_spread(played["oracle"], played["ours"]),
        ),
    ]  # fmt: skip


def _ablation_rows(table: Mapping[str, Played]) -> list[dict[str, Any]]:
    rows = []
    for name in ablations():
        each = {regime: statistics.mean(played[name]) for regime, played in table.items()}
        whole = statistics.mean(statistics.mean(played["ours"]) for played in table.values())
        rows.append(
            row(
                f"select.worlds.variant.{name.replace(' ', '_').replace(',', '')}",
                "mean AP on screen over all regimes of the full method, less that of this variant",
                baseline=f"full method, {whole:.3f}", ours=round(whole - statistics.mean(each.values()), 4), unit="AP",
                note=", ".join(f"{regime} {value:.3f}" for regime, value in each.items()),
            )
        )  # fmt: skip
    return rows


def _twist_row(name: str, table: Mapping[str, Played], others: Mapping[str, Chooser]) -> dict[str, Any]:
    """How far ours is above the best rival in the regime where it is least so."""
    gains, notes = [], []
    for regime, played in table.items():
        means = {each: statistics.mean(values) for each, values in played.items()}
        best = max(others, key=means.__getitem__)
        gains.append(100 * (means["ours"] / means[best] - 1))
        notes.append(f"{regime}: ours {means['ours']:.3f}, {best} {means[best]:.3f}, oracle {means['oracle']:.3f}")
    return row(
        f"select.worlds.twisted.{name}",
        f"calibrated in the plain world, played in {TWISTS[name]}: least gain of the four regimes over the best rival there",
        baseline="best rival of each regime", ours=round(min(gains), 2), unit="%", bar=">= 0",
        spread=(min(gains), max(gains)), note="; ".join(notes),
    )  # fmt: skip


def _mean(seeds: list[World], chooser: Chooser, load: Load) -> float:
    return statistics.mean(play(world, chooser, load).precision(world) for world in seeds)


def _spread(above: list[float], below: list[float]) -> tuple[float, float]:
    each = [a - b for a, b in zip(above, below, strict=True)]
    return min(each), max(each)


if __name__ == "__main__":
    for line in worlds("--full" in sys.argv):
        print(json.dumps(line))
