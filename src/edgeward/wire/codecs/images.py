"""Codecs for the input cut, where what crosses is a picture: plain bytes, PNG, JPEG. Honest rivals of all others.

blob = ImageCodec("jpeg90").encode(picture)      # [1, 3, H, W] or [3, H, W], values 0 to 1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeward.errors import ConfigError, MissingExtra, WireError
from edgeward.wire.codecs.base import MAX_BYTES, RAW, Array, Codec, Head, read_head, write_head

__all__ = ["ImageCodec", "PixelCodec"]

_MAX_CHUNKS = 1 << 20


class PixelCodec(Codec):
    """Values 0 to 1 as whole numbers 0 to 255, any shape."""

    name, lossless = "uint8", False

    def encode(self, array: Array) -> bytes:
        array = np.asarray(array)
        if array.dtype.kind != "f":
            return _raw(array, self.name)
        body: bytes = _pixels(array, self.name).tobytes()
        return write_head(Head(self.name, 0, array.dtype.newbyteorder("<"), array.shape, len(body))) + body

    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        head, body = read_head(data, max_bytes)
        if head.flags & RAW:
            return _from_raw(head, body, self.name)
        if head.name != self.name or head.dtype.kind != "f" or body.nbytes != head.count:
            raise WireError(f"{body.nbytes} bytes as {head.name!r} for {list(head.shape)}; {head.count} are needed")
        table = (np.arange(256) / 255).astype(head.dtype)
        return np.take(table, np.frombuffer(body, np.uint8)).reshape(head.shape)

    def error_bound(self, array: Array) -> float:
        dtype = np.asarray(array).dtype
        return 0.0 if dtype.kind != "f" else 1 / 510 + (2.0**-11 if dtype.itemsize == 2 else 2.0**-24)


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
        if array.dtype.kind != "f":
            return _raw(array, self.name)
        fits = shape[-3:-2] == (3,) and shape[:-3] in ((), (1,)) and 0 not in shape
        if not fits:
            raise WireError(f"{self.name} takes pictures [1, 3, H, W] of floats, not {array.dtype} {list(shape)}")
        pixels = _pixels(array, self.name).reshape(shape[-3:]).transpose(1, 2, 0)[..., ::-1]
        cv2 = _cv2()
        options = [] if self.name == "png" else [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        try:
            done, body = cv2.imencode(".png" if self.name == "png" else ".jpg", np.ascontiguousarray(pixels), options)
        except cv2.error:
            done = False
        if not done:
            raise WireError(f"a picture of {list(shape)} cannot be written as {self.name}; sides of JPEG end at 65500")
        data: bytes = body.tobytes()
        return write_head(Head(self.name, 0, array.dtype.newbyteorder("<"), shape, len(data))) + data

    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        from edgeward.vision.sources.folder import image_size

        head, body = read_head(data, max_bytes)
        if head.flags & RAW:
            return _from_raw(head, body, self.name)
        size = image_size(bytes(body))
        if head.name != self.name or len(head.shape) < 3 or size != head.shape[:-3:-1] or head.dtype.kind != "f":
            raise WireError(f"a picture of size {size} was announced as {head.name!r} {list(head.shape)}")
        if head.count != 3 * head.shape[-1] * head.shape[-2]:
            raise WireError(f"a picture was announced as {list(head.shape)}; it has 3 colours")
        if self.name == "png" and not _plain_png(body):
            raise WireError("a PNG is damaged, or not one that edgeward writes; it must be sent again")
        cv2 = _cv2()
        try:
            pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            pixels = None
        if pixels is None or pixels.shape[:2] != head.shape[-2:]:
            raise WireError("a picture is damaged; it must be sent again")
        planes = np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))
        return np.take((np.arange(256) / 255).astype(head.dtype), planes).reshape(head.shape)

    def error_bound(self, array: Array) -> float:
        most = PixelCodec().error_bound(array)
        return 1.0 if most and self.name != "png" else most


def _raw(array: Array, name: str) -> bytes:
    """The blob of an array that is no picture: values as they are."""
    dtype = array.dtype.newbyteorder("<")
    body = np.ascontiguousarray(array, dtype).tobytes()
    return write_head(Head(name, RAW, dtype, array.shape, len(body))) + body


def _from_raw(head: Head, body: memoryview, name: str) -> Array:
    expected = head.count * head.dtype.itemsize
    if head.name != name or body.nbytes != expected:
        raise WireError(f"{body.nbytes} bytes as {head.name!r} for {list(head.shape)}; {expected} are needed")
    return np.frombuffer(body, head.dtype).reshape(head.shape).copy()


def _plain_png(data: memoryview) -> bool:
    """Whether a PNG is nothing but header, pixels and end, each within the data (ISO/IEC 15948, 5.3).

    OpenCV allocates what a chunk's length claims before it looks how many bytes there are; other chunks may unpack to
    more than the pixels do.
    """
    position, kinds = 8, list[bytes]()
    while position + 12 <= data.nbytes and len(kinds) < _MAX_CHUNKS:
        length = int.from_bytes(data[position : position + 4])
        kinds.append(bytes(data[position + 4 : position + 8]))
        position += 12 + length
    middle = set(kinds[1:-1])
    return position == data.nbytes and kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and middle == {b"IDAT"}


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
