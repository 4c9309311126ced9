"""Detectors that look at a picture in tiles: what that finds, what it takes, and how others put the tiles together.

    python benchmarks/select/tiles.py --full

Average precision at an IoU of 0.5 of fresh boxes, persons, mean of PETS and TUD. SAHI joins the very same boxes by
whichever of its ways and measures of overlap finds most of these persons; `pip install --no-deps sahi shapely pillow` to compare.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from harness import ratio, row, shared_data  # noqa: E402
from recorded import CONFIDENCE, answered, pictures, recordings, resolved  # noqa: E402

from edgeward.serve.models import StoredModel  # noqa: E402
from edgeward.serve.runner import Runner  # noqa: E402
from edgeward.vision.metrics.precision import average_precision  # noqa: E402
from edgeward.vision.results import Detections  # noqa: E402
from edgeward.vision.tiles import Place, Tiles, joined  # noqa: E402

MODELS = ("fast", "ssd", "nano320", "center320")
TWO, FOUR = Tiles(columns=2), Tiles(columns=2, rows=2)
REPEATS = 21
Join = Callable[[Sequence[Detections], Sequence[Place], int, int], Detections]


@dataclass(frozen=True)
class Found:
    """Average precision on each video, and milliseconds that joining took, if it was timed."""

    pets: float
    tud: float
    milliseconds: float = 0.0

    @property
    def mean(self) -> float:
        return (self.pets + self.tud) / 2


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """Each model whole and in two tiles; a small one in two beside a larger one; what joins four."""
    if shared is None:
        return [row("select.tiles", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    whole = resolved(shared)
    models: dict[str, StoredModel] = {name: whole[name] for name in MODELS}
    models |= {f"{name} in two": _tiled(model) for name, model in list(models.items())}
    every = {"PETS": 2, "TUD": 1} if full else {"PETS": 20, "TUD": 5}
    found = {name: _found(shared, model, every) for name, model in models.items()}
    seconds = answered(models, next(pictures(shared, "PETS")), REPEATS)
    lines = [_row(f"{name} in two", name, found, seconds, f"{name}.over_whole") for name in MODELS]
    lines.append(_row("fast in two", "center320", found, seconds, "fast.over_center320", bar=">= 0"))
    return lines + _joined_rows(shared, whole["fast"], every)


def _tiled(model: StoredModel) -> StoredModel:
    return replace(model, card=model.card.model_copy(update={"tiles": TWO}))


def _found(shared: Path, model: StoredModel, every: dict[str, int], join: Join | None = None) -> Found:
    """What it finds as its card says; with `join`, in four tiles that are put together so."""
    runner, taken = Runner({model.name: model}, threads=1), list[float]()
    runner.load(model.name)
    person = model.card.labels.index("person")

    def look(picture: np.ndarray) -> Detections:
        [boxes] = runner.infer(model.name, [runner.prepare(model.name, picture)], CONFIDENCE)
        assert isinstance(boxes, Detections)
        boxes = boxes[boxes.class_id == person]
        return replace(boxes, class_id=np.zeros(len(boxes), np.int32))

    def look_joined(picture: np.ndarray) -> Detections:
        assert join is not None
        height, width = picture.shape[:2]
        places = FOUR.places(width, height)
        answers = [look(picture[top:bottom, left:right]) for left, top, right, bottom in places]
        begin = time.perf_counter()
        found = join(answers, places, width, height)
        taken.append(time.perf_counter() - begin)
        return found

    seen = look if join is None else look_joined
    precisions = [_precision(shared, video, step, seen) for video, step in every.items()]
    runner.close()
    return Found(*precisions, milliseconds=1000 * statistics.median(taken or [0.0]))


def _precision(shared: Path, video: str, step: int, look: Callable[[np.ndarray], Detections]) -> float:
    boxes = {i: look(picture) for i, picture in enumerate(pictures(shared, video)) if i % step == 0}
    return average_precision(boxes, recordings(shared)[video].truth, frames=sorted(boxes))


def _row(
    name: str, other: str, found: dict[str, Found], seconds: dict[str, list[float]], label: str, bar: str = ""
) -> dict[str, Any]:
    ours, theirs = found[name], found[other]
    times, each = ratio(seconds[name], seconds[other])
    return row(
        f"select.tiles.{label}", f"AP@0.5 of fresh boxes, mean of PETS and TUD: {name} tiles over {other}, whole, less 1",
        baseline=f"{other}, {theirs.mean:.3f}", ours=round(100 * (ours.mean / theirs.mean - 1), 2), unit="%", bar=bar,
        note=f"PETS {ours.pets:.3f} over {theirs.pets:.3f}, TUD {ours.tud:.3f} over {theirs.tud:.3f}; it takes {times:.2f} times"
        f" as long ({min(each):.2f} to {max(each):.2f})",
    )  # fmt: skip


def _joined_rows(shared: Path, model: StoredModel, every: dict[str, int]) -> list[dict[str, Any]]:
    """Ours and SAHI's way to put four tiles together, of the same boxes."""
    what = "four tiles of fast put together: AP@0.5, mean of PETS and TUD, over the best of SAHI's ways, less 1"
    try:
        rivals = _sahi()
    except ImportError as missing:
        note = f"not here: {missing}"
        return [row("select.tiles.joined.over_sahi", what, baseline="SAHI", ours=None, unit="%", note=note)]
    ours = _found(shared, model, every, joined)
    tried = {name: _found(shared, model, every, join) for name, join in rivals.items()}
    best = max(tried, key=lambda name: tried[name].mean)
    theirs = tried[best]
    return [
        row(
            "select.tiles.joined.over_sahi", what, baseline=f"SAHI, {best}, {theirs.mean:.3f}",
            ours=round(100 * (ours.mean / theirs.mean - 1), 2), unit="%", bar=">= 0",
            note=f"PETS {ours.pets:.3f} over {theirs.pets:.3f}, TUD {ours.tud:.3f} over {theirs.tud:.3f}; "
            + ", ".join(f"{name} {each.mean:.3f}" for name, each in tried.items()),
        ),
        row(
            "select.tiles.joined.seconds", "median time to put four tiles together, over the same way of SAHI's (numpy)",
            baseline=f"SAHI, {best}, {theirs.milliseconds:.2f} ms", ours=round(ours.milliseconds / theirs.milliseconds, 3), unit="x",
            bar="<= 1", note=f"{ours.milliseconds:.2f} ms",
        ),
    ]  # fmt: skip


def _sahi() -> dict[str, Join]:
    """Its ways to join, of which GREEDYNMM by IOS is the default. Raises ImportError where it is not installed."""
    from sahi.postprocess.backends import set_postprocess_backend
    from sahi.postprocess.combine import GreedyNMMPostprocess, NMSPostprocess
    from sahi.prediction import ObjectPrediction

    set_postprocess_backend("numpy")
    ways = {
        f"{name} by {metric}": kind(match_threshold=0.5, match_metric=metric, class_agnostic=False)
        for name, kind in (("GREEDYNMM", GreedyNMMPostprocess), ("NMS", NMSPostprocess))
        for metric in ("IOS", "IOU")
    }

    def join(way: Any, answers: Sequence[Detections], places: Sequence[Place], width: int, height: int) -> Detections:
        predictions = [
            ObjectPrediction(
                bbox=[float(side) for side in box], category_id=0, category_name="person", score=float(sure),
                shift_amount=list(place[:2]), full_shape=[height, width],
            )
            for boxes, place in zip(answers, places, strict=True)
            for box, sure in zip(boxes.xyxy, boxes.confidence, strict=True)
        ]  # fmt: skip
        merged = way([each.get_shifted_object_prediction() for each in predictions])
        boxes = [each.bbox.to_xyxy() for each in merged]
        return Detections(boxes, [each.score.value for each in merged], [0] * len(merged))

    return {name: functools.partial(join, way) for name, way in ways.items()}


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
