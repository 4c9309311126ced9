"""Exits of one network as rungs of a ladder: what an exit saves, what it finds, what both hold, what the choice gains.

    python benchmarks/select/exits.py --full

FastestDet and an exit half way through it (`earlyexit.py`). From one third of each recording the exit learns, another one
calibrates the ladder: what an exit finds in frames that it knows says little. The last is judged, as in `regimes.py`, on
devices 10, 20 and 40 times as slow as this one, where a part of so small a network matters. All that is compared remembers.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from calibrated import calibrated, comparable, thirds  # noqa: E402
from costs import LoadAt, Machine  # noqa: E402
from film import Film, Piece, Shown, pooled  # noqa: E402
from harness import ratio, row, shared_data  # noqa: E402
from recorded import CONFIDENCE, Recording, answered, pictures, recordings  # noqa: E402
from regimes import cut, ours  # noqa: E402
from video import REMEMBERED, play  # noqa: E402

from edgeward.serve.modelconfig import ModelConfig  # noqa: E402
from edgeward.serve.models import StoredModel, resolve_model  # noqa: E402
from edgeward.serve.rivals import Fixed  # noqa: E402
from edgeward.serve.runner import Runner  # noqa: E402
from edgeward.vision.metrics.precision import average_precision  # noqa: E402
from edgeward.vision.results import Detections  # noqa: E402
from edgeward.weights.store import WeightStore  # noqa: E402

LOADS: dict[str, LoadAt] = {
    "10x": lambda time: 10.0,
    "20x": lambda time: 20.0,
    "40x": lambda time: 40.0,
    "changing": lambda time: (10.0, 40.0, 20.0)[int(time / 4) % 3],
}
REPEATS = 101


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """An exit learned from the first third; in full from each in turn."""
    if shared is None:
        return [row("select.exits", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films, frames = recordings(shared), {name: list(pictures(shared, name)) for name in ("PETS", "TUD")}
    taken: list[dict[str, list[float]]] = []
    fresh: list[dict[str, float]] = []
    shown: dict[str, dict[str, list[Shown]]] = {}
    held: dict[str, int] = {}
    for turn in range(3 if full else 1):
        known, calibrates, judges = (_parts(films, (turn + step) % 3) for step in range(3))
        with tempfile.TemporaryDirectory() as folder:
            models = _exits(shared, Path(folder), [frames[name][index] for name in frames for index in known[name]])
            held = _held(models)
            taken.append(answered(models, frames["PETS"][0], REPEATS))
            found = {name: replace(film, boxes=_boxes(models, frames[name])) for name, film in films.items()}
        fresh.append({name: _fresh(found, name, judges) for name in models})
        seconds = {name: float(np.quantile(each, 0.25)) for name, each in taken[-1].items()}
        ladder = calibrated({film: calibrates[name] for name, film in found.items()}, seconds)
        film = _film({name: comparable(each, ladder) for name, each in found.items()}, judges)
        choosers = {name: Fixed(name) for name in models} | {"ours": ours(ladder)}
        for load, at in LOADS.items():
            for name, chooser in choosers.items():
                played = play(film, chooser, Machine(seconds, at), REMEMBERED)
                shown.setdefault(load, {}).setdefault(name, []).append(played)
    return [_saved(taken), _found(fresh), _shared(held), *_gained(shown)]


def _parts(films: Mapping[str, Recording], third: int) -> dict[str, range]:
    return {name: thirds(film, third)[0] for name, film in films.items()}


def _film(films: Mapping[str, Recording], parts: Mapping[str, range]) -> Film:
    """These parts, in turns of about as long as in `regimes.py`."""
    street = Piece(films["TUD"], parts["TUD"].start, parts["TUD"].stop)
    return Film.of([each for piece in cut(films["PETS"], [parts["PETS"]]) for each in (piece, street)])


def _exits(shared: Path, folder: Path, frames: list[np.ndarray]) -> dict[str, StoredModel]:
    """Both exits of one file, as the box serves them."""
    from earlyexit import EARLY, FULL, two_exits

    path, store = two_exits(shared, frames, folder), WeightStore(folder / "weights")
    entry = {"file": path, "convention": "fastestdet", "labels": "coco"}
    named = {"early": EARLY, "full": FULL}
    return {
        name: resolve_model(
            ModelConfig.model_validate(entry | {"name": name, "outputs": [output]}), store, folder, "cpu"
        )
        for name, output in named.items()
    }


def _held(models: Mapping[str, StoredModel]) -> dict[str, int]:
    """Bytes in memory of each, and of both together."""
    alone = {name: sum(model.tensors.values()) for name, model in models.items()}
    return alone | {
        "both": sum({key: size for model in models.values() for key, size in model.tensors.items()}.values())
    }


def _boxes(models: Mapping[str, StoredModel], frames: list[np.ndarray]) -> dict[str, tuple[Detections, ...]]:
    """Persons in each frame, class 0."""
    runner = _loaded(models)
    found: dict[str, tuple[Detections, ...]] = {}
    for name, model in models.items():
        person = model.card.labels.index("person")
        answers = [runner.infer(name, [runner.prepare(name, frame)], CONFIDENCE)[0] for frame in frames]
        people = [each[each.class_id == person] for each in answers if isinstance(each, Detections)]
        found[name] = tuple(replace(each, class_id=np.zeros(len(each), np.int32)) for each in people)
    runner.close()
    return found


def _loaded(models: Mapping[str, StoredModel]) -> Runner:
    runner = Runner(models, threads=1)
    for name in models:
        runner.load(name)
    return runner


def _fresh(films: Mapping[str, Recording], name: str, parts: Mapping[str, range]) -> float:
    """Average precision of fresh boxes in these parts, mean of the videos."""
    return statistics.mean(
        average_precision({i: films[film].boxes[name][i] for i in chosen}, films[film].truth, frames=chosen)
        for film, chosen in parts.items()
    )


def _saved(taken: list[dict[str, list[float]]]) -> dict[str, Any]:
    early, full = ([second for each in taken for second in each[name]] for name in ("early", "full"))
    median, ratios = ratio(early, full)
    return row(
        "select.exits.seconds", "time of an answer of FastestDet's exit half way, from a picture to boxes, over the whole"
        " network's; median of interleaved runs", baseline=f"whole, {1000 * statistics.median(full):.2f} ms", ours=round(median, 3),
        unit="x", bar="<= 1", spread=np.quantile(ratios, [0.25, 0.75]), note="spread: quartiles",
    )  # fmt: skip


def _found(fresh: list[dict[str, float]]) -> dict[str, Any]:
    early, full = (statistics.mean(each[name] for each in fresh) for name in ("early", "full"))
    return row(
        "select.exits.precision", "AP@0.5 of fresh boxes, mean of PETS and TUD: the exit's over the whole network's, less 1",
        baseline=f"whole, {full:.3f}", ours=round(100 * (early / full - 1), 2), unit="%",
    )  # fmt: skip


def _shared(held: Mapping[str, int]) -> dict[str, Any]:
    return row(
        "select.exits.held", "bytes of both exits in memory over those of the whole network alone, less 1",
        baseline=f"whole, {held['full']} bytes", ours=round(100 * (held["both"] / held["full"] - 1), 2), unit="%",
        note=f"the exit alone has {held['early']} bytes",
    )  # fmt: skip


def _gained(shown: dict[str, dict[str, list[Shown]]]) -> list[dict[str, Any]]:
    """The choice between the two over the better one, by load and over all loads."""
    folds = range(len(shown["10x"]["ours"]))
    figures = {
        load: {name: [each.precision() for each in seen] for name, seen in by.items()} for load, by in shown.items()
    }
    figures["mixed"] = {
        name: [pooled([part for by in shown.values() for part in by[name][fold].judged()]) for fold in folds]
        for name in shown["10x"]
    }
    lines = []
    for load, each in figures.items():
        means = {name: statistics.mean(values) for name, values in each.items()}
        best = max(("early", "full"), key=means.__getitem__)
        gains = [100 * (a / b - 1) for a, b in zip(each["ours"], each[best], strict=True)]
        lines.append(
            row(
                f"select.exits.{load}.over_best_fixed",
                f"streaming AP@0.5 on real video, latencies {load}: the choice between two exits over the better one, less 1; all"
                " remember",
                baseline=f"{best}, {means[best]:.3f}", ours=round(100 * (means["ours"] / means[best] - 1), 2), unit="%",
                bar=">= 0" if load == "mixed" else "", spread=(min(gains), max(gains)), note=", ".join(f"{name} {value:.3f}" for name, value in means.items()),
            )
        )  # fmt: skip
    return lines


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
