"""Pictures for people: results drawn in, JPEGs for the live page, thumbnails of what happened.

    shown = annotate(frame.image, [(boxes, COCO)], zones=[Zone("door", corners)])
    jpeg = encode_jpeg(shown, max_width=960)
    small = thumbnail(frame.image, boxes.xyxy[0], size=160)

Nothing here changes the picture that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.vision.frames import Image
from edgeward.vision.results import Classification, Detections, Result
from edgeward.vision.zones import Zone

__all__ = ["annotate", "encode_jpeg", "thumbnail"]

Colour = tuple[int, int, int]

INKS: tuple[Colour, ...] = (
    (255, 155, 91),
    (168, 191, 47),
    (255, 141, 171),
    (74, 149, 242),
    (179, 122, 236),
    (68, 194, 156),
    (92, 205, 236),
    (200, 160, 120),
)
"""BGR; a track keeps its colour, untracked boxes have that of their class."""
DARK: Colour = (18, 14, 11)
PALE: Colour = (235, 235, 235)
FONT = cv2.FONT_HERSHEY_SIMPLEX

MARGIN = 0.25
"""Around a thumbnail's box, as a fraction of its longer side."""
MAX_JPEG_SIDE = 65500
"""Pixels; libjpeg takes no more."""
FAR = 1e6
"""Pixels; OpenCV's drawing overflows for coordinates far outside the picture."""


def annotate(image: Image, results: Iterable[tuple[Result, Sequence[str]]], zones: Iterable[Zone] = ()) -> Image:
    """A copy of `image` with zones, boxes and classes drawn in.

    results: each with the names of its classes in order. Embeddings leave no trace: there is nothing to draw.
    zones: in pixels, or in fractions of the picture.
    """
    shown = np.ascontiguousarray(image).copy()
    height, width = shown.shape[:2]
    scale = min(max(height / 720, 0.6), 3.0)
    for zone in zones:
        _zone(shown, zone.in_pixels(width, height), scale)
    line = 0
    for result, labels in results:
        if isinstance(result, Detections):
            _boxes(shown, result, labels, scale)
        elif isinstance(result, Classification) and len(result.class_id):
            text = f"{_name(labels, int(result.class_id[0]))} {float(result.confidence[0]):.0%}"
            _tag(shown, text, (round(8 * scale), round((26 + 24 * line) * scale)), INKS[line % len(INKS)], scale)
            line += 1
    return shown


def encode_jpeg(image: Image, max_width: int, quality: int = 80) -> bytes:
    """JPEG of `image`, scaled down to at most `max_width` pixels across (never up).

    quality: 1 to 100. Raises ConfigError when either is out of range or the picture is too tall for JPEG.
    """
    if max_width < 1:
        raise ConfigError(f"max_width is {max_width}; give at least 1 pixel")
    if not 1 <= quality <= 100:
        raise ConfigError(f"JPEG quality is {quality}; give 1 to 100")
    height, width = image.shape[:2]
    ratio = min(max_width / width, MAX_JPEG_SIDE / max(height, width), 1.0)
    if ratio < 1:
        image = _resized(image, ratio)
    return _jpeg(image, quality)


def thumbnail(image: Image, box: npt.NDArray[np.float32] | None, size: int) -> bytes:
    """JPEG of `box` and a margin around it, or of the whole picture; its longer side is at most `size` pixels.

    box: float32 [4], x1 y1 x2 y2 in pixels. What lies outside the picture is left out; a box that shows nothing of
    it, or is not finite, gives the whole picture. Raises ConfigError for a size below 1.
    """
    if size < 1:
        raise ConfigError(f"thumbnail size is {size}; give at least 1 pixel")
    crop = image if box is None else _cropped(image, np.asarray(box, np.float64))
    ratio = size / max(crop.shape[:2])
    return _jpeg(_resized(crop, ratio) if ratio < 1 else np.ascontiguousarray(crop), 80)


def _cropped(image: Image, box: npt.NDArray[np.float64]) -> Image:
    """The part of the picture that the box and its margin cover; all of it when they cover none."""
    if not np.isfinite(box).all():
        return image
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box.tolist()
    margin = MARGIN * max(x2 - x1, y2 - y1, 4.0)
    left, top = max(round(x1 - margin), 0), max(round(y1 - margin), 0)
    right, bottom = min(round(x2 + margin), width), min(round(y2 + margin), height)
    visible = x1 < width and y1 < height and x2 > 0 and y2 > 0
    return image[top:bottom, left:right] if visible and left < right and top < bottom else image


def _resized(image: Image, ratio: float) -> Image:
    """The picture made smaller; averaging over areas keeps fine structure from shimmering."""
    height, width = (max(1, round(side * ratio)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(image: Image, quality: int) -> bytes:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(encoded)


def _zone(picture: Image, zone: Zone, scale: float) -> None:
    points = np.round(np.clip(zone.polygon, -FAR, FAR)).astype(np.int32)
    cv2.polylines(picture, [points], True, PALE, max(1, round(scale)), cv2.LINE_AA)
    x, y = points[points[:, 1].argmax()].tolist()
    _tag(picture, zone.name, (x, y), PALE, scale)


def _boxes(picture: Image, boxes: Detections, labels: Sequence[str], scale: float) -> None:
    corners = np.round(np.clip(boxes.xyxy, -FAR, FAR)).astype(np.int32).tolist()
    tracks = [-1] * len(boxes) if boxes.tracker_id is None else boxes.tracker_id.tolist()
    rows = list(zip(corners, boxes.class_id.tolist(), boxes.confidence.tolist(), tracks, strict=True))
    for (x1, y1, x2, y2), class_id, _, track in rows:
        cv2.rectangle(picture, (x1, y1), (x2, y2), _ink(track, class_id), max(1, round(2 * scale)), cv2.LINE_AA)
    for (x1, y1, _, _), class_id, confidence, track in rows:  # after all boxes, so that no line crosses a word
        name = _name(labels, class_id)
        text = f"{name} #{track}" if track >= 0 else f"{name} {confidence:.0%}"
        _tag(picture, text, (x1, y1), _ink(track, class_id), scale)


def _ink(track: int, class_id: int) -> Colour:
    return INKS[(track if track >= 0 else class_id) % len(INKS)]


def _name(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else f"class {class_id}"


def _tag(picture: Image, text: str, corner: tuple[int, int], fill: Colour, scale: float) -> None:
    """A filled label that stands on `corner`, moved inside the picture."""
    shown = text[:40].encode("ascii", "replace").decode()  # OpenCV's own font has no other letters
    size, pad = 0.5 * scale, max(2, round(4 * scale))
    (width, high), below = cv2.getTextSize(shown, FONT, size, 1)
    wide, tall = width + 2 * pad, high + below + pad
    x = max(0, min(corner[0], picture.shape[1] - wide))
    y = max(tall, min(corner[1], picture.shape[0]))
    cv2.rectangle(picture, (x, y - tall), (x + wide, y), fill, -1)
    cv2.putText(picture, shown, (x + pad, y - below - pad // 2), FONT, size, DARK, 1, cv2.LINE_AA)
