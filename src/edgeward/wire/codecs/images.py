"""Codecs for the input cut, where what crosses is a picture: plain bytes, PNG, JPEG. Honest rivals of all others.

blob = ImageCodec("jpeg90").encode(picture)      # [1, 3, H, W] or [3, H, W], values 0 to 1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeward.errors import ConfigError, MissingExtra, WireError
from edgeward.wire.codecs.base import MAX_BYTES, RAW, Array, Codec, Head, read_head, write_head

__all__ = ["ImageCodec", "PixelCodec"]


class PixelCodec(Codec):
    """Values 0 to 1 as whole numbers 0 to 255, any shape."""

    name, lossless = "uint8", False

    def encode(self, array: Array) -> bytes:
        array = np.asarray(array)
        if array.dtype.kind != "f":
            body, flags = np.ascontiguousarray(array).tobytes(), RAW
        else:
            body, flags = _pixels(array, self.name).tobytes(), 0
        return write_head(Head(self.name, flags, array.dtype.newbyteorder("<"), array.shape, len(body))) + body

    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        head, body = read_head(memoryview(data).cast("B"), max_bytes)
        expected = head.count * (head.dtype.itemsize if head.flags & RAW else 1)
        if head.name != self.name or body.nbytes != expected:
            raise WireError(f"{body.nbytes} bytes as {head.name!r} for {list(head.shape)}; {expected} are needed")
        if head.flags & RAW:
            return np.frombuffer(body, head.dtype).reshape(head.shape).copy()
        table = (np.arange(256) / 255).astype(head.dtype)
        return np.take(table, np.frombuffer(body, np.uint8)).reshape(head.shape)

    def error_bound(self, array: Array) -> float:
        return 1 / 510 + 2.0**-11 if np.asarray(array).dtype == np.float16 else 1 / 510 + 2.0**-24


class ImageCodec(Codec):
    """PNG, which adds nothing to the loss of 8-bit pixels, or JPEG of a quality of 1 to 100."""

    lossless = False

    def __init__(self, name: str) -> None:
        kind, quality = (name, 0) if name == "png" else ("jpeg", int(name.removeprefix("jpeg") or 90))
        if kind == "jpeg" and not 1 <= quality <= 100:
            raise ConfigError(f"{name!r}: the quality of a JPEG lies between 1 and 100")
        self.name = "png" if kind == "png" else f"jpeg{quality}"
        self._quality = quality

    def encode(self, array: Array) -> bytes:
        array = np.asarray(array)
        shape = array.shape
        if array.dtype.kind != "f" or shape[-3:-2] != (3,) or len(shape) not in (3, 4) or shape[:-3] not in ((), (1,)):
            raise WireError(f"{self.name} takes pictures [1, 3, H, W] of floats, not {array.dtype} {list(shape)}")
        pixels = _pixels(array, self.name).reshape(shape[-3:]).transpose(1, 2, 0)[..., ::-1]
        cv2 = _cv2()
        options = [] if self.name == "png" else [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        done, body = cv2.imencode(".png" if self.name == "png" else ".jpg", np.ascontiguousarray(pixels), options)
        if not done:
            raise WireError(f"a picture of {list(shape)} cannot be written as {self.name}")
        data: bytes = body.tobytes()
        return write_head(Head(self.name, 0, array.dtype.newbyteorder("<"), shape, len(data))) + data

    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        from edgeward.vision.sources.folder import image_size

        head, body = read_head(memoryview(data).cast("B"), max_bytes)
        size = image_size(bytes(body))
        if head.name != self.name or len(head.shape) < 3 or size != head.shape[:-3:-1] or head.dtype.kind != "f":
            raise WireError(f"a picture of size {size} was announced as {head.name!r} {list(head.shape)}")
        if head.count != 3 * head.shape[-1] * head.shape[-2]:
            raise WireError(f"a picture was announced as {list(head.shape)}; it has 3 colours")
        cv2 = _cv2()
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None or pixels.shape[:2] != head.shape[-2:]:
            raise WireError("a picture is damaged; it must be sent again")
        planes = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))
        return np.take((np.arange(256) / 255).astype(head.dtype), planes).reshape(head.shape)

    def error_bound(self, array: Array) -> float:
        return PixelCodec().error_bound(array) if self.name == "png" else 1.0


def _pixels(array: Array, name: str) -> Any:
    if array.size and not (float(array.min()) >= 0 and float(array.max()) <= 1):
        raise WireError(
            f"{name} takes values from 0 to 1, not {array.min():.4g} to {array.max():.4g}; use another codec"
        )
    return np.rint(np.asarray(array, np.float64) * 255).astype(np.uint8)


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", "video") from error
    return cv2
