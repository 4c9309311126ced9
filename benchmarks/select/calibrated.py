"""A ladder calibrated on some frames of the recordings, and the recordings as it makes them comparable.

    ladder = calibrated({pets: range(0, 265), tud: range(0, 59)}, seconds)
    pets = comparable(pets, ladder)
    pets = fused_boxes(pets, ladder, ["nano320+center320"])      # then calibrate again, with its seconds

The figures are those of `edgeward serve calibrate`, worked out from boxes that are there already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from film import judge
from recorded import Held, Recording

from edgeward.serve.certainty import certain, fitted
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.serve.sizetable import object_sizes, size_edges, size_table, static_iou
from edgeward.vision.fusion import fused, fused_in_turn
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

CONFIDENCE = 0.3
"""Least score of a box that counts for jitter."""


def calibrated(
    frames: Mapping[Recording, Sequence[int]], seconds: Mapping[str, float], held: Mapping[str, Held] | None = None
) -> Ladder:
    """From these frames of the recordings. held: what it takes to have the models in memory; nothing when None."""
    truth = _truth(frames)
    edges = size_edges(object_sizes(truth))
    rungs = []
    for name, each in seconds.items():
        judged = [judge(film, name, index, index) for film, chosen in frames.items() for index in chosen]
        certainty = fitted(*(np.concatenate([part[column] for part in judged]) for column in (0, 1)))
        boxes = [_shares(film, film.boxes[name][index]) for film, chosen in frames.items() for index in chosen]
        jitter = static_iou(_pairs(frames, name, certainty))
        fit = _fit(frames, name, certainty)
        memory = held[name] if held else Held(0, 0.0)
        rungs.append(
            Rung(
                name,
                size_table(dict(enumerate(boxes)), truth, edges),
                each,
                memory.load_seconds,
                memory.bytes,
                static_iou=jitter,
                certainty=certainty,
                fit=fit,
                parts=tuple(turns(name, seconds).values()),
            )
        )
    return Ladder("bench", ("person",), edges, tuple(rungs))


def fused_boxes(recording: Recording, ladder: Ladder, names: Iterable[str]) -> Recording:
    """The recording with what several models find together, too, by their scores on a ladder; under a name of its own."""
    scales = {rung.name: rung.certainty for rung in ladder.rungs}
    boxes = dict(recording.boxes)
    for name in names:
        members = members_of(name)
        sure = [
            [certain(each, scales[member]) for each, member in zip(found, members, strict=True)]
            for found in zip(*(recording.boxes[member] for member in members), strict=True)
        ]
        turns = looks_of(name)
        boxes[name] = tuple(
            fused(each) if turns == 1 else fused_in_turn([*each[index % turns :], *each[: index % turns]])
            for index, each in enumerate(sure)
        )
    return replace(recording, name=f"{recording.name} {hash(ladder):x}", boxes=boxes)


def comparable(recording: Recording, ladder: Ladder) -> Recording:
    """The recording with probabilities for scores, under a name of its own."""
    scales = {rung.name: rung.certainty for rung in ladder.rungs}
    boxes = {name: tuple(certain(each, scales[name]) for each in found) for name, found in recording.boxes.items()}
    return replace(recording, name=f"{recording.name} {hash(ladder):x}", boxes=boxes, certainty=scales)


def turns(name: str, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of a turn of each model that takes turns on a rung: its own, and what is left of the mean; else none."""
    if looks_of(name) == 1:
        return {}
    members = members_of(name)
    fusing = max(seconds[name] - fmean(seconds[member] for member in members), 0.0)
    return {member: seconds[member] + fusing for member in members}


def thirds(recording: Recording, third: int) -> tuple[range, list[range]]:
    """One third of a recording to calibrate on, and what is left to judge, in one or two pieces."""
    count = recording.truth.frames
    first, last = count * third // 3, count * (third + 1) // 3
    return range(first, last), [part for part in (range(first), range(last, count)) if len(part)]


def _truth(frames: Mapping[Recording, Sequence[int]]) -> Truth:
    """Of all frames in turn, in shares of the frame."""
    found = [(film, film.truth.at(index)) for film, chosen in frames.items() for index in chosen]
    number = np.repeat(np.arange(len(found), dtype=np.int32), [len(each) for _, each in found])
    boxes = TruthFrame(
        np.concatenate([each.xyxy / _side(film) for film, each in found]),
        np.concatenate([each.tracker_id for _, each in found]),
        np.concatenate([each.class_id for _, each in found]),
        np.concatenate([each.ignored for _, each in found]),
    )
    return Truth(len(found), ("person",), number, boxes)


def _pairs(
    frames: Mapping[Recording, Sequence[int]], name: str, certainty: tuple[float, float]
) -> list[tuple[Detections, Detections]]:
    found = []
    for film, chosen in frames.items():
        for one, two in itertools.pairwise(chosen):
            if two == one + 1:
                both = [certain(film.boxes[name][index], certainty) for index in (one, two)]
                found.append(tuple(_shares(film, each[each.confidence >= CONFIDENCE]) for each in both))
    return found


def _fit(frames: Mapping[Recording, Sequence[int]], name: str, certainty: tuple[float, float]) -> float:
    """Mean overlap of right boxes with their objects."""
    found = [0.75]
    for film, chosen in frames.items():
        for index in chosen:
            real, boxes = film.truth.at(index), certain(film.boxes[name][index], certainty)
            boxes = boxes[boxes.confidence >= CONFIDENCE]
            if len(real) and len(boxes):
                best = overlap(boxes.xyxy, real.xyxy, np.zeros(len(real), bool)).max(axis=1)
                found += best[best >= 0.5].tolist()
    return round(float(np.mean(found)), 4)


def _shares(film: Recording, boxes: Detections) -> Detections:
    return replace(boxes, xyxy=boxes.xyxy / _side(film))


def _side(film: Recording) -> np.ndarray:
    return np.array([film.width, film.height] * 2, np.float32)
