"""Boxes moved to the present against boxes left where they were, on real video and real detections.

    python benchmarks/select/forecast.py --full

A detector that takes n frames answers every n-th, n frames late, as in a box that takes the newest frame whenever it is
free. What is on screen is tracked as in a box; the figure is streaming AP at an IoU of 0.5 (Li et al., ECCV 2020). The
options of each recording are those that are best on the other one.
"""

from __future__ import annotations

import functools
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from harness import row, shared_data  # noqa: E402
from recorded import Recording, recordings  # noqa: E402

from edgeward.serve.analysis import TRACKING_FLOOR  # noqa: E402
from edgeward.vision.forecast import Forecast, ForecastOptions  # noqa: E402
from edgeward.vision.metrics import average_precision, streaming_ap  # noqa: E402
from edgeward.vision.results import Detections  # noqa: E402
from edgeward.vision.tracking import ByteTracker  # noqa: E402

LATENCIES = (1, 2, 3, 5, 8)
"""Frames from a frame's arrival to its answer."""
CONFIDENCE = 0.3
"""That of a query unless its box file says otherwise."""
OFFERED = tuple(
    ForecastOptions(doubt, jitter, damping)
    for doubt, jitter, damping in itertools.product((0.0, 0.1, 0.3), (0.03, 0.05, 0.1), (1.0, 3.0, 10.0))
)
TUNING_RUNG = "fast"


class Late:
    """The answers of a detector that takes so many frames, as a box shows them, and what the tracker itself expects."""

    def __init__(self, recording: Recording, rung: str, frames: int) -> None:
        self.recording = recording
        self.arrivals = {index: round(index * 1e9 / recording.fps) for index in range(recording.truth.frames)}
        self.finished: list[tuple[int, int, Detections]] = []
        self.expected: dict[int, Detections] = {}
        tracker = ByteTracker(CONFIDENCE, TRACKING_FLOOR)
        for first in range(0, recording.truth.frames - frames, frames):
            boxes = recording.boxes[rung][first]
            boxes = tracker.update(boxes[boxes.confidence >= TRACKING_FLOOR], first / recording.fps)
            shown = boxes[(boxes.tracker_id >= 0) | (boxes.confidence >= CONFIDENCE)]
            self.finished.append((self.arrivals[first + frames], first, shown))
            for index in range(first + frames, min(first + 2 * frames, recording.truth.frames)):
                self.expected[index] = tracker.forecast(index / recording.fps)

    def precision(self, options: ForecastOptions | None) -> float:
        """Streaming AP; None: boxes are left where they were."""
        forecast = None if options is None else Forecast.start(options)
        return streaming_ap(self.arrivals, self.finished, self.recording.truth, forecast=forecast).ap

    def fresh(self) -> float:
        """AP of the same boxes on their own frames: what no forecast can be expected to exceed."""
        boxes = {frame: shown for _, frame, shown in self.finished}
        return average_precision(boxes, self.recording.truth, frames=list(boxes))

    def by_tracker(self) -> float:
        """Streaming AP of ByteTrack's own Kalman filter: `ByteTracker.forecast`, its lost tracks included."""
        return average_precision(self.expected, self.recording.truth)


def best(cases: Sequence[Late]) -> ForecastOptions:
    """The options with the highest mean streaming AP."""
    return max(OFFERED, key=lambda options: statistics.mean(case.precision(options) for case in cases))


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """Streaming AP by recording, detector and latency. Quick: one detector, and the options as delivered."""
    if shared is None:
        return [row("select.forecast", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    films = recordings(shared)
    late = functools.cache(lambda film, rung, frames: Late(films[film], rung, frames))
    lines = []
    for film, other in (("PETS", "TUD"), ("TUD", "PETS")):
        tuned = best([late(other, TUNING_RUNG, frames) for frames in LATENCIES]) if full else ForecastOptions()
        for rung, frames in itertools.product(("fast", "nano", "center") if full else ("fast",), LATENCIES):
            case = late(film, rung, frames)
            still, moved, default = (case.precision(options) for options in (None, tuned, ForecastOptions()))
            lines.append(
                row(
                    f"select.forecast.{film.lower()}.{rung}.{frames}",
                    f"streaming AP@0.5 of {rung} on {film}, answers {frames} frames late, boxes moved to the present",
                    baseline=f"boxes left where they were: {still:.3f}",
                    ours=round(moved, 4),
                    unit="",
                    bar=f">= {still:.4f}",
                    note=f"as delivered {default:.3f}; ByteTrack's own filter {case.by_tracker():.3f};"
                    f" on their own frames {case.fresh():.3f}; options {tuned.doubt:g}, {tuned.jitter:g},"
                    f" {tuned.damping_seconds:g} s{', best on ' + other if full else ''}",
                )
            )
    return lines


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
