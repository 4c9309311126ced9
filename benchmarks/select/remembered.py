"""What a memory of the last moments is worth, for each detector by itself, and how others smooth detections over time.

    python benchmarks/select/remembered.py --full

Average precision at an IoU of 0.5 of fresh boxes, persons, mean of PETS and TUD, every frame. Also F1 at a confidence of
0.3, as a box shows by default: there memory drops boxes that one look alone saw. "ACF" and "Faster R-CNN" are the boxes that
come with these recordings, of detectors (not scenes) that no constant was chosen with. DetectionsSmoother of supervision
gets our tracks of the very same boxes, and whichever length and thresholds find most of these persons;
`pip install --no-deps supervision` and what it asks for to compare.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from film import judged_boxes  # noqa: E402
from harness import interleaved, ratio, row, shared_data  # noqa: E402
from recorded import Recording, recordings  # noqa: E402

from edgeward.serve.fused import FAINT  # noqa: E402
from edgeward.vision.memory import Memory  # noqa: E402
from edgeward.vision.metrics.precision import average_precision  # noqa: E402
from edgeward.vision.results import Detections  # noqa: E402
from edgeward.vision.tracking import ByteTracker  # noqa: E402

PUBLIC = {
    "ACF": {"PETS": "multicam/pets2009_s2l1/view_001_det_acf.txt", "TUD": "mot/TUD-Stadtmitte/det/det.txt"},
    "Faster R-CNN": {
        "PETS": "multicam/pets2009_s2l1/view_001_det_frcnn.txt",
        "TUD": "mot/TUD-Stadtmitte/det/det_frcnn.txt",
    },
}
COMPARED = "center320"
SHOWN = 0.3
LENGTHS, SURE = (3, 5, 9), (0.1, 0.2, 0.3)
REPEATS = 7
Answers = Sequence[Detections]
Smooth = Callable[[Recording, Answers], list[Detections]]


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """Each detector with memory over the same without; one of them over the smoother. Quick: three of them."""
    if shared is None:
        return [row("select.memory", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films = recordings(shared)
    models = tuple(next(iter(films.values())).boxes) if full else (COMPARED,)
    found = {name: {film: each.boxes[name] for film, each in films.items()} for name in models}
    found |= {name: {film: _public(shared / file) for film, file in files.items()} for name, files in PUBLIC.items()}
    lines = [line for name, answers in found.items() for line in _rows(films, name, answers)]
    return lines + _smoother_rows(films, found[COMPARED])


def _public(file: Path) -> list[Detections]:
    """Boxes of each frame; scores that are no probabilities made such, in their order."""
    table = np.loadtxt(file, delimiter=",")
    scores = table[:, 6] if table[:, 6].max() <= 1 else 1 / (1 + np.exp(-table[:, 6] / table[:, 6].std()))
    frames = [table[:, 0] == frame for frame in range(1, int(table[:, 0].max()) + 1)]
    return [
        Detections(
            np.hstack([table[here, 2:4], table[here, 2:4] + table[here, 4:6]]),
            np.clip(scores[here], 0, 1),
            np.zeros(int(here.sum())),
        )
        for here in frames
    ]


def remembered(film: Recording, answers: Answers) -> list[Detections]:
    """Each answer with what the ones before it found."""
    memory, found = Memory(0.3), []
    for frame, boxes in enumerate(answers):
        memory.see("", boxes, frame / film.fps)
        found.append(memory.boxes)
    return found


def alone(film: Recording, answers: Answers) -> list[Detections]:
    return list(answers)


def _rows(films: Mapping[str, Recording], name: str, answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    label = name.lower().replace(" ", "_").replace("-", "")
    without, with_memory = (_precisions(films, answers, smooth) for smooth in (alone, remembered))
    before, after = statistics.mean(without), statistics.mean(with_memory)
    f1 = [statistics.mean(_f1(films, answers, smooth)) for smooth in (alone, remembered)]
    public = "; no constant was chosen with these boxes" if name in PUBLIC else ""
    return [row(
        f"select.memory.{label}.over_alone",
        "average precision of fresh boxes with what was found in the last moments, over that without, less 1; mean of two"
        " videos",
        baseline=f"{name}, {before:.3f}", ours=round(100 * (after / before - 1), 2), unit="%", bar=">= 0",
        note=", ".join(f"{film} {a:.3f} to {b:.3f}" for film, a, b in zip(films, without, with_memory, strict=True)) + public,
    ), row(
        f"select.memory.{label}.f1", f"the same of F1 at a confidence of {SHOWN}, boxes from {FAINT * SHOWN} on remembered",
        baseline=f"{name}, {f1[0]:.3f}", ours=round(100 * (f1[1] / f1[0] - 1), 2), unit="%", note=public[2:],
    )]  # fmt: skip


def _f1(films: Mapping[str, Recording], answers: Mapping[str, Answers], smooth: Smooth) -> list[float]:
    """Of what a query with a confidence of SHOWN shows."""
    found = []
    for name, film in films.items():
        shown = smooth(film, [boxes[boxes.confidence >= FAINT * SHOWN] for boxes in answers[name]])
        shown = [boxes[boxes.confidence >= SHOWN] for boxes in shown]
        judged = [judged_boxes(boxes, film.truth.at(frame)) for frame, boxes in enumerate(shown)]
        right, boxes, objects = (
            sum(column) for column in zip(*((r.sum(), len(r), n) for _, r, n in judged), strict=True)
        )
        found.append(2 * float(right) / (boxes + objects))
    return found


def _precisions(films: Mapping[str, Recording], answers: Mapping[str, Answers], smooth: Smooth) -> list[float]:
    found = []
    for name, film in films.items():
        shown = smooth(film, answers[name])
        found.append(average_precision(dict(enumerate(shown)), film.truth, frames=range(len(shown))))
    return found


def _smoother_rows(films: Mapping[str, Recording], answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    what = f"average precision of fresh boxes of {COMPARED} with memory, over that of the same boxes smoothed by DetectionsSmoother"
    ways = _smoothers()
    if not ways:
        note = "install supervision to compare"
        return [row("select.memory.over_supervision", what, baseline="supervision", ours=None, unit="%", note=note)]
    precision = {name: statistics.mean(_precisions(films, answers, way)) for name, way in ways.items()}
    ours, best = statistics.mean(_precisions(films, answers, remembered)), max(precision, key=precision.__getitem__)
    seconds = _seconds({"ours": remembered, best: ways[best]}, films["TUD"], answers["TUD"])
    took, spread = ratio(seconds["ours"], seconds[best])
    return [
        row(
            "select.memory.over_supervision",
            f"{what} of supervision, less 1",
            baseline=f"{best}, {precision[best]:.3f}", ours=round(100 * (ours / precision[best] - 1), 2), unit="%",
            bar=">= 0", note=", ".join(f"{name} {value:.3f}" for name, value in precision.items()),
        ),
        row(
            "select.memory.seconds", "time of an answer's memory over that of a tracker and the smoother",
            baseline=f"{best}, {1000 * statistics.median(seconds[best]):.2f} ms", ours=round(took, 3), unit="x", spread=spread,
            note=f"{1000 * statistics.median(seconds['ours']):.2f} ms",
        ),
    ]  # fmt: skip


def _seconds(ways: Mapping[str, Smooth], film: Recording, answers: Answers) -> dict[str, list[float]]:
    """Of one answer: interleaved."""

    def run(way: Smooth) -> float:
        begin = time.perf_counter()
        way(film, answers)
        return (time.perf_counter() - begin) / len(answers)

    return interleaved({name: functools.partial(run, way) for name, way in ways.items()}, REPEATS)


def _smoothers() -> dict[str, Smooth]:
    """supervision's, by length and least confidence of a track; none where it is not installed."""
    try:
        import supervision
    except ImportError:
        return {}

    def smoothed(film: Recording, answers: Answers, length: int, sure: float) -> list[Detections]:
        tracker, smoother, found = ByteTracker(sure, 0.05), supervision.DetectionsSmoother(length), []
        for frame, boxes in enumerate(answers):
            tracked = tracker.update(boxes, frame / film.fps)
            held = tracked.tracker_id >= 0
            theirs = smoother.update_with_detections(
                supervision.Detections(
                    xyxy=tracked.xyxy[held],
                    confidence=tracked.confidence[held],
                    class_id=tracked.class_id[held],
                    tracker_id=tracked.tracker_id[held],
                )
            )
            rest = tracked[~held]
            found.append(
                Detections(
                    np.concatenate([theirs.xyxy.reshape(-1, 4), rest.xyxy]),
                    np.concatenate([theirs.confidence if len(theirs) else np.zeros(0), rest.confidence]),
                    np.zeros(len(theirs) + len(rest)),
                )
            )
        return found

    return {
        f"supervision, length {length}, tracks from {sure:g}": (
            lambda film, answers, length=length, sure=sure: smoothed(film, answers, length, sure)
        )
        for length in LENGTHS
        for sure in SURE
    }


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
