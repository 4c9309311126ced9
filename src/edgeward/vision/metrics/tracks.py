"""How well identities are kept: HOTA, IDF1 and MOTA, by TrackEval.

    scores = tracking_scores(results, truth)
    print(scores.hota, scores.idf1, scores.mota, scores.switches)

HOTA: Luiten et al., IJCV 2021. IDF1: Ristani et al., ECCV workshops 2016. MOTA: Bernardin, Stiefelhagen, EURASIP 2008.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError, EdgewardError
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

__all__ = ["TrackingScores", "load_trackeval", "tracking_scores"]

IGNORED_OVERLAP = 0.5
INSTALL = "pip install --no-deps trackeval==1.3.0"
"""Without its dependencies: these metrics need numpy and scipy only, and the declared opencv-python shadows ours."""

_IMPORTING = threading.Lock()

Frame = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Real keys [n, 2] and tracked keys [m, 2], each (class, track), and their overlaps [n, m]."""


@dataclass(frozen=True)
class TrackingScores:
    """hota: mean over the overlaps 0.05, 0.10, ..., 0.95 of the geometric mean of detection and association accuracy.

    idf1: 2 IDTP / (2 IDTP + IDFP + IDFN). mota: 1 - (misses + false boxes + switches) / real boxes; may be negative.
    switches: times a real object changes its track. The last three at an overlap of 0.5.
    """

    hota: float
    idf1: float
    mota: float
    switches: int


def tracking_scores(
    results: Mapping[int, Detections], truth: Truth, frames: Sequence[int] | None = None
) -> TrackingScores:
    """Score tracked detections against annotated identities.

    results: detections by content index; those with tracker_id -1 do not count. frames: content indices that count;
    all of the truth when absent. All classes are scored together, but a box matches its own class only.

    Raises ConfigError when the truth has no identities, EdgewardError when TrackEval is not installed, ValueError
    for detections that were not tracked or name a track twice in a frame.
    """
    metrics = load_trackeval()
    chosen = range(truth.frames) if frames is None else sorted(set(frames))
    data = _sequence([_frame(frame, results.get(frame), truth.at(frame)) for frame in chosen])
    hota = metrics.HOTA().eval_sequence(data)
    identity = metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    clear = metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    return TrackingScores(
        float(np.mean(hota["HOTA"])), float(identity["IDF1"]), float(clear["MOTA"]), int(clear["IDSW"])
    )


def load_trackeval() -> Any:
    """TrackEval's metrics. Whoever scores in threads that run beside printing calls it once before they start.

    Raises EdgewardError when it is not installed.
    """
    try:
        # It prints on being imported when what its other parts need is missing. The standard output is the whole
        # process's: two threads that both put it away would each bring back what the other had put in its place.
        with _IMPORTING, contextlib.redirect_stdout(io.StringIO()):
            from trackeval import metrics
    except ImportError as error:
        raise EdgewardError(f"tracking scores need TrackEval ({error}); run: {INSTALL}") from error
    return metrics


def _frame(frame: int, boxes: Detections | None, real: TruthFrame) -> Frame:
    """One frame's identities, without what is to be ignored."""
    boxes = Detections.empty() if boxes is None else boxes
    if len(boxes) and boxes.tracker_id is None:
        raise ValueError(f"frame {frame}: detections have no tracker_id; pass them through a tracker first")
    wanted = ~real.ignored
    if (real.tracker_id[wanted] < 0).any():
        raise ConfigError(f"frame {frame} of the truth has a box without identity; tracking scores need track ids")
    if boxes.tracker_id is not None:
        boxes = boxes[boxes.tracker_id >= 0]
    same_class = boxes.class_id[:, None] == real.class_id
    shared = np.where(same_class, overlap(boxes.xyxy, real.xyxy, real.ignored), 0.0)
    kept = ~_passed_over(shared, real.ignored)
    numbers = np.zeros(0, np.int32) if boxes.tracker_id is None else boxes.tracker_id
    tracked = _keys(boxes.class_id[kept], numbers[kept])
    if len(np.unique(tracked, axis=0)) < len(tracked):
        raise ValueError(f"frame {frame}: two boxes of one class have the same tracker_id")
    return _keys(real.class_id[wanted], real.tracker_id[wanted]), tracked, shared[kept][:, wanted].T


def _passed_over(shared: npt.NDArray[np.float64], ignored: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which boxes lie on an ignored one and are not needed for a real one, [n]."""
    on_ignored: npt.NDArray[np.bool_] = np.any(shared[:, ignored] >= IGNORED_OVERLAP, axis=1)
    if not on_ignored.any():
        return on_ignored
    from scipy.optimize import linear_sum_assignment  # TrackEval needs it too

    wanted = shared[:, ~ignored]
    near = wanted >= IGNORED_OVERLAP
    rows, columns = linear_sum_assignment(np.where(near, wanted, 0.0), maximize=True)
    on_ignored[rows[near[rows, columns]]] = False
    return on_ignored


def _keys(class_id: npt.NDArray[np.int32], track: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    return np.stack([class_id, track], axis=1).astype(np.int64)


def _sequence(frames: Sequence[Frame]) -> dict[str, Any]:
    """The form TrackEval takes: identities numbered from 0 without gaps."""
    real, real_ids = _numbered(frame[0] for frame in frames)
    tracked, tracked_ids = _numbered(frame[1] for frame in frames)
    return {
        "num_timesteps": len(frames),
        "num_gt_ids": real,
        "num_tracker_ids": tracked,
        "num_gt_dets": sum(map(len, real_ids)),
        "num_tracker_dets": sum(map(len, tracked_ids)),
        "gt_ids": real_ids,
        "tracker_ids": tracked_ids,
        "similarity_scores": [frame[2] for frame in frames],
    }


def _numbered(columns: Iterable[npt.NDArray[np.int64]]) -> tuple[int, list[npt.NDArray[np.int64]]]:
    """How many keys differ, and each frame's keys as numbers."""
    keys = list(columns)
    unique, inverse = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *keys]), axis=0, return_inverse=True)
    stops = np.cumsum([len(key) for key in keys])
    return len(unique), np.split(inverse.reshape(-1), stops)[: len(keys)]
