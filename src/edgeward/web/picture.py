"""A live frame with its overlays drawn into the JPEG, for those who want one picture and no page.

jpeg = annotated(box.live_frame("gate"))
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from edgeward.serve.report import LiveFrame
from edgeward.vision.draw import annotate, encode_jpeg
from edgeward.vision.results import Detections, Result, result_from_json
from edgeward.vision.zones import Zone

__all__ = ["annotated"]


def annotated(live: LiveFrame) -> bytes:
    """The JPEG of `live` with zones, boxes, tracks and classes drawn in; as it is when it cannot be decoded."""
    decoded = cv2.imdecode(np.frombuffer(live.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        return live.jpeg
    picture = np.asarray(decoded, np.uint8)
    scale = picture.shape[1] / live.width
    results = [(_scaled(overlay.result, scale), overlay.labels) for overlay in live.overlays]
    zones = [
        Zone(name, tuple((x * scale, y * scale) for x, y in polygon))
        for overlay in live.overlays
        for name, polygon in overlay.zones.items()
    ]
    return encode_jpeg(annotate(picture, results, zones), max_width=picture.shape[1], quality=85)


def _scaled(record: dict[str, Any], scale: float) -> Result:
    result = result_from_json(record)
    return replace(result, xyxy=result.xyxy * scale) if isinstance(result, Detections) else result
