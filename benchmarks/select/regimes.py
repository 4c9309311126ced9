"""Real video under every load: each model alone, ours, TOD, Chameleon, by lot, in turn, and what labels would choose.

    python benchmarks/select/regimes.py --full

Scenes play at the rate they were recorded at (PETS 7, TUD 25 frames a second), in turns of about 19 s of PETS and what
is left of TUD. The ladder has six models and four rungs of two of them (`recorded.FUSED`); "best_fixed" is the best of the
models, "best_fixed_rung" the best of all rungs. Rivals that choose have all rungs, TOD once more ("of models") the six
only. One third of each recording calibrates the ladder and tunes TOD and Chameleon at the nominal load; the other two are
judged. Full: each third in turn, mean of the three. All choosers show the
ladder's comparable scores. Ours remembers what was found in the last moments (`remember: true`); rivals, which are tuned
without, show what their models found, and play once more with the same memory ("remembering"). The film jumps between
cameras of different pace. The box notices that the view is another one (`edgeward.vision.views`): whoever chooses, boxes of the
old one are not shown; the pace is told from the next two frames.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from calibrated import calibrated, comparable, fused_boxes, thirds  # noqa: E402
from costs import LoadAt, Machine  # noqa: E402
from film import Film, Piece, Shown, pooled  # noqa: E402
from harness import row, shared_data  # noqa: E402
from recorded import FUSED, Held, Recording, held, measured, recordings  # noqa: E402
from video import RAW, REMEMBERED, play  # noqa: E402

from edgeward.serve.choosers import AnyChooser  # noqa: E402
from edgeward.serve.elsewhere import elsewhere  # noqa: E402
from edgeward.serve.ladder import Ladder  # noqa: E402
from edgeward.serve.modelconfig import members_of  # noqa: E402
from edgeward.serve.rivals import Fixed, Oracle, Periodic, Random, RoundRobin, Thresholds  # noqa: E402
from edgeward.serve.rules import Rules  # noqa: E402
from edgeward.serve.selection import Selector  # noqa: E402

LOADS: dict[str, LoadAt] = {
    "1x": lambda time: 1.0,
    "2x": lambda time: 2.0,
    "3x": lambda time: 3.0,
    "changing": lambda time: (1.0, 3.0, 1.6)[int(time / 4) % 3],
}
QUICK = ("1x", "3x")
FASTER = 3.0
NOT_HELD_OUT = (
    "each third of the recordings calibrates once and the other two are judged; constants of the decision code were chosen"
    " on these recordings, so they are not held out"
)
PIECE = 132
"""Frames of PETS between two of TUD."""
WINDOWS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds for which the oracle keeps one model; of the five schedules it takes the best."""
REMEMBERING = ", remembering"
FORGETTING = "ours, forgetting"
TOD_OF_MODELS = "TOD-like of models"
LOTTERY = ("random", "round robin")
Seconds = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Fold:
    """One way to part the recordings: the ladder, and the films to tune rivals on and to judge by.

    judged: the recordings with what all rungs find, in comparable scores.
    """

    ladder: Ladder
    tuning: Film
    film: Film
    judged: Mapping[str, Recording]

    @classmethod
    def of(
        cls,
        films: Mapping[str, Recording],
        third: int,
        seconds: Seconds,
        speed: float = 1.0,
        held: Mapping[str, Held] | None = None,
    ) -> Fold:
        """seconds: of the rungs; of several models, ONE+TWO, what they find together is worked out."""
        single = models_alone(seconds)
        ladder = calibrated({film: thirds(film, third)[0] for film in films.values()}, single, held)
        if len(single) < len(seconds):
            films = {name: fused_boxes(film, ladder, seconds.keys() - single.keys()) for name, film in films.items()}
            ladder = calibrated({film: thirds(film, third)[0] for film in films.values()}, seconds, held)
        pets, tud = (comparable(films[name], ladder) for name in ("PETS", "TUD"))
        street = [Piece(tud, part.start, part.stop) for part in thirds(tud, third)[1]]
        tuning = [Piece(film, part.start, part.stop) for film in (pets, tud) for part in (thirds(film, third)[0],)]
        judged = [each for piece in cut(pets, thirds(pets, third)[1]) for each in (piece, *street)]
        shown = {"PETS": pets, "TUD": tud}
        return cls(ladder, Film.of(tuning, speed=speed), Film.of(judged, speed=speed), shown)


def cut(recording: Recording, parts: list[range]) -> list[Piece]:
    """In pieces of about PIECE frames."""
    found = []
    for part in parts:
        bounds = np.linspace(part.start, part.stop, max(round(len(part) / PIECE), 1) + 1).astype(int)
        found += [Piece(recording, int(a), int(b)) for a, b in itertools.pairwise(bounds)]
    return found


def ours(ladder: Ladder, **changed: Any) -> Selector:
    return Selector.start(elsewhere(ladder), Rules(25.0, 768, 576, own_frame=False, **changed))


def oracle(film: Film, fixed: Mapping[str, Shown], machine: Machine) -> Shown:
    """The best of five schedules that labels would have chosen from what each model alone had on screen, with memory."""
    found = []
    for window in WINDOWS:
        starts = np.arange(0.0, film.times[-1] + window, window)
        spans = list(itertools.pairwise(np.searchsorted(film.times, starts)))
        names = [max(fixed, key=lambda name: fixed[name].precision(a, b) if a < b else 0.0) for a, b in spans]
        found.append(play(film, Oracle(tuple(starts[:-1]), tuple(names)), machine, REMEMBERED))
    return max(found, key=Shown.precision)


def thresholds(fold: Fold, seconds: Seconds, counts: tuple[int, ...] = (2, 3)) -> Thresholds:
    """TOD with the best two or three of these rungs and sizes between them, at the nominal load. counts: how many rungs.

    Those are tried than which none that takes no longer has a higher mean accuracy.
    """
    rungs = [rung for rung in fold.ladder.rungs if rung.name in seconds]
    front = [one.name for one in rungs if not any(o.seconds <= one.seconds and o.mean > one.mean for o in rungs)]
    order = sorted(front, key=seconds.__getitem__)
    edges = (*fold.ladder.edges[1:-1], 0.11)
    tried = [
        Thresholds(names, tuple(sorted(least, reverse=True)), 768, 576)
        for count in counts
        for names in itertools.combinations(order, count)
        for least in itertools.combinations(edges, count - 1)
    ]
    return max(tried, key=lambda each: play(fold.tuning, each, Machine(seconds)).precision())


def periodic(fold: Fold, seconds: Seconds) -> Periodic:
    """Chameleon with the best of nine settings, at the nominal load; its reference is the most accurate model."""
    best = max(fold.ladder.rungs, key=lambda rung: rung.mean).name
    order = (*sorted((name for name in seconds if name != best), key=seconds.__getitem__), best)
    tried = [Periodic(order, period, target) for period in (2.0, 4.0, 8.0) for target in (0.65, 0.8, 0.9)]
    return max(tried, key=lambda each: play(fold.tuning, each, Machine(seconds)).precision())


def rivals(fold: Fold, seconds: Seconds, full: bool) -> dict[str, AnyChooser]:
    names, counts = tuple(seconds), (2, 3) if full else (2,)
    return {
        "TOD-like": thresholds(fold, seconds, counts), TOD_OF_MODELS: thresholds(fold, models_alone(seconds), counts),
        "Chameleon-like": periodic(fold, seconds), "random": Random(names), "round robin": RoundRobin(names),
    }  # fmt: skip


def models_alone(seconds: Seconds) -> dict[str, float]:
    """Without rungs of several models."""
    return {name: each for name, each in seconds.items() if len(members_of(name)) == 1}


VARIANTS: dict[str, dict[str, Any]] = {
    "sizes alone": {"drift": None},
    "no looks": {"probe_share": 0.0},
    "no hysteresis": {"margin": 0.0, "dwell": 0.0},
}
Played = dict[str, dict[str, list[Shown]]]


def played(films: Mapping[str, Recording], seconds: Seconds, full: bool, speed: float = 1.0) -> Played:
    """What was on screen: by load, chooser and fold."""
    table: Played = {}
    for third in range(3 if full else 1):
        fold = Fold.of(films, third, seconds, speed)
        others: dict[str, AnyChooser] = {name: Fixed(name) for name in seconds} | rivals(fold, seconds, full)
        arms = {name: (each, RAW) for name, each in others.items()}
        arms |= {name + REMEMBERING: (each, REMEMBERED) for name, each in others.items() if name not in LOTTERY}
        arms |= {"ours": (ours(fold.ladder), REMEMBERED), FORGETTING: (ours(fold.ladder), RAW)}
        changed = VARIANTS if full and speed == 1 else {}
        arms |= {name: (ours(fold.ladder, **each), REMEMBERED) for name, each in changed.items()}
        for regime in LOADS if full else QUICK:
            machine = Machine(seconds, LOADS[regime])
            shown = {name: play(fold.film, chooser, machine, query) for name, (chooser, query) in arms.items()}
            shown["oracle"] = oracle(fold.film, {name: shown[name + REMEMBERING] for name in seconds}, machine)
            for name, each in shown.items():
                table.setdefault(regime, {}).setdefault(name, []).append(each)
    return table


def regime_rows(table: Played, names: tuple[str, ...], label: str) -> list[dict[str, Any]]:
    """Each load, and all loads one after another ("mixed")."""
    figures = {
        regime: {name: [shown.precision() for shown in each] for name, each in by_name.items()}
        for regime, by_name in table.items()
    }
    figures["mixed"] = {
        name: [
            pooled([part for by_name in table.values() for part in by_name[name][fold].judged()])
            for fold in range(len(table["1x"][name]))
        ]
        for name in table["1x"]
    }
    rows = []
    for regime, each in figures.items():
        means = {name: statistics.mean(values) for name, values in each.items()}
        noted = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        for mine, kind, rival, bar in _compared(means, names, ">= 4" if regime == "mixed" else ">= 0"):
            gains = [100 * (a / b - 1) for a, b in zip(each[mine], each[rival], strict=True)]
            who = "ours, which remembers," if mine == "ours" else "ours without memory"
            rows.append(
                row(
                    f"select.{label}.{regime}.{kind}",
                    f"streaming AP@0.5 on real video, latencies {regime}: {who} over the rival's, less 1; {NOT_HELD_OUT}",
                    baseline=f"{rival}, {means[rival]:.3f}", ours=round(100 * (means[mine] / means[rival] - 1), 2),
                    unit="%", bar=bar, spread=(min(gains), max(gains)), note=noted if kind == "over_best_fixed" else "",
                )
            )  # fmt: skip
        rows.append(
            row(
                f"select.{label}.{regime}.regret", f"the same, latencies {regime}: of a schedule made from labels, less ours",
                baseline=f"oracle, {means['oracle']:.3f}", ours=round(means["oracle"] - means["ours"], 4), unit="AP",
            )
        )  # fmt: skip
    return rows


def _compared(means: Mapping[str, float], names: Sequence[str], bar: str) -> Iterator[tuple[str, str, str, str]]:
    """What ours is compared with: which of ours, kind, rival, bar. names: of the models; bar: over the best of them."""
    rungs = [*names, *(name for name in FUSED if name in means)]
    pairs = (
        ("ours", "", "over_{}"),
        ("ours", REMEMBERING, "over_{}_remembering"),
        (FORGETTING, "", "forgetting_over_{}"),
    )
    for mine, memory, kind in pairs:
        best_rung, best = (max((name + memory for name in each), key=means.__getitem__) for each in (rungs, names))
        yield mine, kind.format("best_fixed_rung"), best_rung, ""
        yield mine, kind.format("best_fixed"), best, bar
        yield mine, kind.format("tod"), f"TOD-like{memory}", ">= 0"
        yield mine, kind.format("tod_of_models"), f"{TOD_OF_MODELS}{memory}", ">= 0"
        yield mine, kind.format("chameleon"), f"Chameleon-like{memory}", ">= 0"
    yield "ours", "over_forgetting", FORGETTING, ">= 0"


def memory_rows(
    films: Mapping[str, Recording], seconds: Seconds, held: Mapping[str, Held], full: bool
) -> list[dict[str, Any]]:
    """With memory for the two largest models only: what is not in memory has to be loaded."""
    room = sum(sorted(each.bytes for each in held.values())[-2:])
    sizes = {name: each.bytes for name, each in held.items()}
    loads = {name: each.load_seconds for name, each in held.items()}
    table: dict[str, list[float]] = {}
    for third in range(3 if full else 1):
        fold = Fold.of(films, third, seconds, held=held)
        machine = Machine(seconds, LOADS["changing"], sizes, loads, room)
        choosers: dict[str, AnyChooser] = {name: Fixed(name) for name in seconds}
        choosers["ours"] = ours(fold.ladder, memory=room)
        for name, chooser in choosers.items():
            query = REMEMBERED if name == "ours" else RAW
            table.setdefault(name, []).append(play(fold.film, chooser, machine, query).precision())
    means = {name: statistics.mean(each) for name, each in table.items()}
    best = max(seconds, key=means.__getitem__)
    gains = [100 * (a / b - 1) for a, b in zip(table["ours"], table[best], strict=True)]
    return [
        row(
            "select.video.memory_for_two.over_best_fixed",
            "streaming AP@0.5 on real video, changing latencies, memory for the two largest of six models, loads take the"
            f" measured time: ours, which remembers, over the best fixed model, less 1; {NOT_HELD_OUT}",
            baseline=f"{best}, {means[best]:.3f}", ours=round(100 * (means["ours"] / means[best] - 1), 2), unit="%",
            bar=">= 0", spread=(min(gains), max(gains)),
            note=", ".join(f"{name} {value:.3f}" for name, value in means.items())
            + f"; loads of {1000 * min(loads.values()):.0f} to {1000 * max(loads.values()):.0f} ms",
        )
    ]  # fmt: skip


def skipped_row(table: Played, names: tuple[str, ...]) -> dict[str, Any]:
    """Whether a change costs frames: where every fixed model answers all frames, ours has to, too."""
    found = table["1x"]
    fixed = max(sum(each.skipped for each in found[name]) for name in names)
    return row(
        "select.video.1x.skipped",
        "frames that no model took up while ours chose, latencies 1x, beyond those of the fixed model that skips most",
        baseline=f"{fixed} frames", ours=max(sum(each.skipped for each in found["ours"]) - fixed, 0), unit="frames",
        bar="<= 0",
    )  # fmt: skip


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """All regimes at the recorded pace; in full also at three times the pace."""
    if shared is None:
        return [row("select.video", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films, seconds, together = recordings(shared), measured(shared), measured(shared, FUSED)
    table = played(films, together, full)
    found = [*regime_rows(table, tuple(seconds), "video"), skipped_row(table, tuple(seconds))]
    found += memory_rows(films, seconds, held(shared), full)
    if full:
        found += regime_rows(played(films, together, full, FASTER), tuple(seconds), f"video_{FASTER:g}x_speed")
    return found


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(
            json.dumps(line)
            if "--json" in sys.argv
            else (line["id"], line["baseline"], line["ours"], line["bar"], line["note"])
        )
