"""From a camera's picture to a model's input, and boxes back again.

    batch = np.empty((1, *spec.shape), np.float32)
    placement = prepare(image, spec, batch[0])
    xyxy = placement.to_frame(boxes_in_model_pixels)

Runs for every frame: one resize, one split and one multiply-add per channel, no temporary of the input's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import MissingExtra
from edgeward.vision.card import Preprocess
from edgeward.vision.frames import Image
from edgeward.vision.results import FloatArray

try:
    import cv2
except ImportError as error:
    raise MissingExtra("opencv-python-headless", "video") from error

__all__ = ["Placement", "prepare"]

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in a model's input: model pixel = frame pixel * scale + offset. All in pixels."""

    frame_width: int
    frame_height: int
    model_width: int
    model_height: int
    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_frame(self, xyxy: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """Boxes [n, 4] from model pixels to frame pixels, clipped to the frame; float32."""
        offset = np.array([self.offset_x, self.offset_y] * 2)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        limit = np.array([self.frame_width, self.frame_height] * 2)
        return np.asarray(np.clip((xyxy - offset) / scale, 0, limit), np.float32)


def prepare(image: Image, spec: Preprocess, out: FloatArray) -> Placement:
    """Fill `out`, float32 of `spec.shape`, from a picture uint8 [height, width, 3], BGR.

    Raises ValueError when the shape or type of either does not fit.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a picture is uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
    if out.shape != spec.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"the input to fill is contiguous float32 {list(spec.shape)}, not {out.dtype} {list(out.shape)}"
        )
    placement = _place(image, spec)
    _normalise(_resize(image, spec, placement), spec, out)
    return placement


def _place(image: Image, spec: Preprocess) -> Placement:
    height, width = image.shape[:2]
    if spec.fit == "stretch":
        return Placement(width, height, spec.width, spec.height, spec.width / width, spec.height / height)
    scale = min(spec.width / width, spec.height / height)
    inner_width = min(spec.width, max(1, round(width * scale)))
    inner_height = min(spec.height, max(1, round(height * scale)))
    return Placement(
        width, height, spec.width, spec.height, inner_width / width, inner_height / height,
        (spec.width - inner_width) // 2, (spec.height - inner_height) // 2,
    )  # fmt: skip


def _resize(image: Image, spec: Preprocess, placement: Placement) -> Image:
    interpolation = _INTERPOLATION[spec.interpolation]
    if spec.fit == "stretch":
        if image.shape[:2] == (spec.height, spec.width):
            return image
        return np.asarray(cv2.resize(image, (spec.width, spec.height), interpolation=interpolation), np.uint8)
    left, top = int(placement.offset_x), int(placement.offset_y)
    width = round(placement.scale_x * placement.frame_width)
    height = round(placement.scale_y * placement.frame_height)
    canvas = np.full((spec.height, spec.width, 3), spec.pad, np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=interpolation)
    return canvas


def _normalise(image: Image, spec: Preprocess, out: FloatArray) -> None:
    """out = (image - mean) / std, as image * gain + bias."""
    gain = [1 / std for std in spec.std]
    bias = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    if spec.layout == "nhwc":
        np.multiply(image[..., ::-1] if spec.colour == "rgb" else image, np.asarray(gain, np.float32), out=out)
        out += np.asarray(bias, np.float32)
        return
    planes = cv2.split(image)
    for channel, plane in enumerate(reversed(planes) if spec.colour == "rgb" else planes):
        cv2.addWeighted(plane, gain[channel], plane, 0.0, bias[channel], dst=out[channel], dtype=cv2.CV_32F)
