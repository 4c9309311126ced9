"""Our tracker against that of `trackers` when frames are skipped, on the boxes of a detector used for no setting.

rows(Path("data"))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime
from harness import row
from tracking import LOST_SECONDS, PETS_TRUTH, TUD, TUD_TRUTH, Tracker, by_trackers, tracked

from edgeward.vision.conventions import convention
from edgeward.vision.frames import Image
from edgeward.vision.metrics import TrackingScores, tracking_scores
from edgeward.vision.preprocess import prepare
from edgeward.vision.results import Detections
from edgeward.vision.tracking import ByteTracker
from edgeward.vision.truth import load_truth

STRIDES = (1, 4)


@dataclass(frozen=True)
class Recording:
    """A recording with its annotation; best_f1: FastestDet's score of best F1 there, from the data's README, 2.1."""

    name: str
    pictures: str
    truth: str
    fps: float
    best_f1: float


RECORDINGS = (
    Recording("PETS09-S2L1", "video/vtest.avi", PETS_TRUTH, 7, 0.69),
    Recording("TUD-Stadtmitte", f"{TUD}/img1", TUD_TRUTH, 25, 0.65),
)


def pictures(path: Path) -> Iterator[Image]:
    """The frames of a video, or the images of a folder."""
    if path.is_dir():
        yield from (np.asarray(cv2.imread(str(file)), np.uint8) for file in sorted(path.glob("*.jpg")))
        return
    with av.open(str(path)) as video:
        yield from (frame.to_ndarray(format="bgr24") for frame in video.decode(video=0))


def people(data: Path, recording: Recording) -> list[Detections]:
    """FastestDet's people of every frame, from the score 0.1 on."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = data / "detectors/FastestDet/FastestDet.onnx"
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    family = convention("fastestdet")
    given = np.zeros((1, *family.usual.shape), np.float32)
    found = []
    for picture in pictures(data / recording.pictures):
        placement = prepare(picture, family.usual, given[0])
        [boxes] = family.decode(session.run(None, {"input.1": given}), [placement], 0.1)
        found.append(boxes[boxes.class_id == 0])
    return found


def compared(data: Path, recording: Recording) -> Iterator[tuple[int, float, dict[str, TrackingScores]]]:
    """(every n-th frame, certain score, scores by tracker); all trackers are told the frames' times."""
    truth, boxes, fps = load_truth(data / recording.truth), people(data, recording), recording.fps
    for stride in STRIDES:
        offered = {frame: boxes[frame] for frame in range(0, truth.frames, stride)}
        for certain in (0.6, recording.best_f1):
            thresholds = {"high_conf_det_threshold": certain, "track_activation_threshold": certain}
            trackers = {
                "edgeward": Tracker(ByteTracker(high_confidence=certain, lost_seconds=LOST_SECONDS).update),
                "trackers": by_trackers(stamped=True, frame_rate=fps, **thresholds),
                "as delivered": by_trackers(stamped=True, frame_rate=fps),
            }
            results = {name: tracked(tracker, offered, fps)[0] for name, tracker in trackers.items()}
            scores = {name: tracking_scores(each, truth, frames=list(offered)) for name, each in results.items()}
            yield stride, certain, scores


def rows(data: Path) -> list[dict[str, Any]]:
    """Rows of the `serve` benchmark: HOTA, IDF1 and MOTA against `trackers`; a quarter of a minute of detection."""
    lines = []
    for recording in RECORDINGS:
        for stride, certain, scores in compared(data, recording):
            slug = f"{recording.name.lower().replace('-', '_')}_fastestdet_every_{stride}_certain_{certain:g}"
            for metric in ("hota", "idf1", "mota"):
                mine, other, delivered = (getattr(each, metric) for each in scores.values())
                lines.append(
                    row(
                        f"serve.tracking.{slug}.{metric}",
                        f"{metric.upper()} by TrackEval, {recording.name}, FastestDet, every n-th frame: {stride}",
                        baseline=f"the better of trackers.ByteTrackTracker's: {max(other, delivered):.3f}",
                        ours=round(mine, 4),
                        unit="",
                        bar=f">= {max(other, delivered):.4f}",
                        note=f"trackers with the same thresholds {other:.3f}, with its own {delivered:.3f}",
                    )
                )
    return lines
