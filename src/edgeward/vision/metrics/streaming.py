"""Average precision when lateness counts.

    score = streaming_ap(arrivals, finished, truth)
    print(score.ap, score.staleness_seconds)
    moved = streaming_ap(arrivals, finished, truth, forecast=Forecast.start())

Li, Wang, Ramanan, "Towards Streaming Perception" (ECCV 2020, section 3): the world does not wait for an answer, so
every frame of the source is compared with what was known when it arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeward.clock import to_seconds
from edgeward.vision.forecast import Forecast
from edgeward.vision.metrics.precision import average_precision
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth

__all__ = ["StreamingScore", "streaming_ap"]


@dataclass(frozen=True)
class StreamingScore:
    """ap: streaming average precision, 0..1.

    staleness_seconds: mean over the source's frames of the time between the arrival of the frame and that of the one
    its answer was made from, of those frames that had an answer; None when there was none.
    """

    ap: float
    staleness_seconds: float | None


def streaming_ap(
    arrivals: Mapping[int, int],
    finished: Sequence[tuple[int, int, Detections]],
    truth: Truth,
    iou: float = 0.5,
    forecast: Forecast | None = None,
    views: Mapping[int, int] | None = None,
) -> StreamingScore:
    """Judge every frame that arrived against the newest answer finished by then; before any, against no boxes.

    arrivals: nanoseconds at which each frame (content index) arrived. finished: (nanoseconds, frame, detections) of
    each answer, in any order. An answer that comes after that of a newer frame is not shown. forecast: as it is before
    the first answer; with it the boxes are moved from the arrival of their frame to that of the frame judged.
    views: the number of the view of each frame (`Frame.view`); an answer about another one is not shown.
    Raises ValueError for an answer to a frame that never arrived.
    """
    unknown = {frame for _, frame, _ in finished} - arrivals.keys()
    if unknown:
        raise ValueError(f"answers to frames that never arrived: {sorted(unknown)[:5]}")
    pending = sorted(finished, key=lambda answer: answer[:2])
    newest: tuple[int, Detections] | None = None
    begun = forecast
    known: dict[int, Detections] = {}
    ages = []
    taken = 0
    for frame, now in sorted(arrivals.items(), key=lambda arrival: arrival[1]):
        while taken < len(pending) and pending[taken][0] <= now:
            _, answered, boxes = pending[taken]
            if newest is None or answered >= newest[0]:
                if views is not None and newest is not None and views[newest[0]] != views[answered]:
                    forecast = begun
                newest = (answered, boxes)
                if forecast is not None:
                    forecast = forecast.observe(boxes, to_seconds(arrivals[answered]))
            taken += 1
        if newest is not None and (views is None or views[frame] == views[newest[0]]):
            known[frame] = newest[1] if forecast is None else forecast.at(to_seconds(now))
            ages.append(now - arrivals[newest[0]])
    ap = average_precision(known, truth, iou, frames=list(arrivals))
    return StreamingScore(ap, to_seconds(sum(ages)) / len(ages) if ages else None)
