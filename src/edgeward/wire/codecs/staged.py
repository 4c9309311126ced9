"""A codec of up to three stages: zeros left out, values written in fewer bits, the bytes compressed.

    codec = Staged(Affine("int8", 8, Rounding()), zero=True, squeeze=True)

Arrays that are not floats, and floats that no fewer bits can hold (NaN, infinities), travel as they are.
"""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from edgeward.errors import WireError
from edgeward.wire.codecs.base import (
    MAX_BYTES,
    RAW,
    SQUEEZED,
    ZERO,
    Array,
    Codec,
    Floats,
    Head,
    read_head,
    write_head,
)
from edgeward.wire.codecs.quantise import Quantiser

__all__ = ["Staged"]

_LEVEL = 1
"""Of zstd: what a weak core can pay for a thin link."""
_FLOATS = ("<f2", "<f4", "<f8")


class Staged(Codec):
    """quantiser: None keeps values as they are. zero: leave zeros out where a bitmap costs less. squeeze: use zstd."""

    def __init__(
        self, quantiser: Quantiser | None, *, zero: bool = False, squeeze: bool = False, suffix: str = ""
    ) -> None:
        self._quantiser, self._zero, self._squeeze = quantiser, zero, squeeze
        self.lossless = quantiser is None
        base = "identity" if quantiser is None else quantiser.name
        self.name = base + suffix + ("+zero" if zero else "") + ("+zstd" if squeeze else "")

    def encode(self, array: Array) -> bytes:
        array = np.asarray(array)
        flags, body = self._body(array)
        length = len(body)
        if self._squeeze and length:
            squeezed = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
            if len(squeezed) < length:
                flags, body = flags | SQUEEZED, squeezed
        dtype = array.dtype.newbyteorder("<")
        return write_head(Head(self.name, flags, dtype, array.shape, length)) + body

    def _body(self, array: Array) -> tuple[int, bytes]:
        """The flags and the body before compression."""
        plain = RAW, np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        values = _floats(array)
        exact = array.dtype.itemsize <= 4  # as float32, in which zeros are left out
        if values is None or not (self._quantiser or (self._zero and exact)):
            return plain
        flags, front = 0, b""
        if self._zero and (found := self._without_zeros(values)) is not None:
            (front, values), flags = found, ZERO
        if not values.size:
            return flags, front
        quantiser = None if self._quantiser is None else self._quantiser.of(array.shape)
        packed = values.astype("<f4").tobytes() if quantiser is None else quantiser.pack(values)
        if packed is None or len(front) + len(packed) >= len(plain[1]):
            return plain
        return flags, front + packed

    def _without_zeros(self, values: Floats) -> tuple[bytes, Floats] | None:
        from edgeward.wire.codecs.kernels import without_zeros

        bits = 32 if self._quantiser is None else self._quantiser.bits
        if (values.size - int(np.count_nonzero(values))) * bits <= values.size:
            return None
        bitmap, kept = without_zeros(values)
        return struct.pack("<Q", kept.size) + bitmap.tobytes(), kept

    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        head, rest = read_head(memoryview(data).cast("B"), max_bytes)
        if head.name != self.name:
            raise WireError(f"a tensor is encoded as {head.name!r}, not {self.name!r}; use decode_any")
        body = _unsqueezed(rest, head.body_bytes) if head.flags & SQUEEZED else rest
        if body.nbytes != head.body_bytes:
            raise WireError(f"an encoded tensor has {body.nbytes} bytes; {head.body_bytes} were announced")
        if head.flags & RAW:
            if body.nbytes != head.count * head.dtype.itemsize:
                raise WireError(
                    f"a tensor of shape {list(head.shape)} does not have {body.nbytes} bytes; send it again"
                )
            return np.frombuffer(body, head.dtype).reshape(head.shape).copy()
        if head.dtype.str not in _FLOATS:
            raise WireError(f"a tensor of {head.dtype} says that it was made smaller; it is damaged, send it again")
        values = self._with_zeros(body, head) if head.flags & ZERO else self._values(body, head.count, head.shape)
        with np.errstate(over="ignore"):
            return values.astype(head.dtype, copy=False).reshape(head.shape)

    def _with_zeros(self, body: memoryview, head: Head) -> Floats:
        count = head.count
        bitmap_bytes = (count + 7) // 8
        if not count or body.nbytes < 8 + bitmap_bytes:
            raise WireError("the bitmap of an encoded tensor is cut short; it must be sent again")
        kept = struct.unpack_from("<Q", body)[0]
        bitmap = np.frombuffer(body[8 : 8 + bitmap_bytes], np.uint8)
        spare = bitmap[-1] >> (count % 8) if count % 8 else 0
        if int(np.bitwise_count(bitmap).sum(dtype=np.int64)) != kept or spare:
            raise WireError("the bitmap of an encoded tensor is damaged; it must be sent again")
        if not kept:
            return np.zeros(count, np.float32)
        from edgeward.wire.codecs.kernels import with_zeros

        values: Floats = with_zeros(bitmap.copy(), self._values(body[8 + bitmap_bytes :], kept, head.shape), count)
        return values

    def _values(self, body: memoryview, count: int, shape: tuple[int, ...]) -> Floats:
        quantiser = None if self._quantiser is None else self._quantiser.of(shape)
        expected = 4 * count if quantiser is None else quantiser.size(count) if count else 0
        if body.nbytes != expected:
            raise WireError(f"{count} values in {body.nbytes} bytes; {self.name!r} needs {expected}; send it again")
        if not count:
            return np.zeros(0, np.float32)
        return np.frombuffer(body, "<f4").copy() if quantiser is None else quantiser.unpack(body, count)

    def error_bound(self, array: Array) -> float:
        array = np.asarray(array)
        values = _floats(array)
        if self._quantiser is None or values is None or not values.size:
            return 0.0
        present = values[values != 0] if self._zero else values
        if not present.size:
            return 0.0
        most = max(float(values.max()), -float(values.min()))
        narrowing = {"<f2": 2.0**-11, "<f4": 0.0, "<f8": 2.0**-24}[array.dtype.newbyteorder("<").str]
        quantiser = self._quantiser.of(array.shape)
        own = quantiser.bound(values)
        if self._zero:  # zeros are kept when there are few of them
            own = max(own, quantiser.bound(present))
        return own + (most + own) * narrowing + (2.0**-24 if narrowing == 2.0**-11 else 0.0)


def _floats(array: Array) -> Floats | None:
    """The values in a row as float32, or None when they are not floats, or not finite as float32."""
    if array.dtype.kind != "f" or array.dtype.newbyteorder("<").str not in _FLOATS:
        return None
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32).reshape(-1)
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        return None
    return values


def _unsqueezed(data: memoryview, length: int) -> memoryview:
    try:
        size = zstandard.frame_content_size(bytes(data[:32]))
        if size != length:
            raise WireError(f"a compressed tensor of {size} bytes was announced as {length}; it is damaged")
        return memoryview(zstandard.ZstdDecompressor().decompress(data, max_output_size=length))
    except zstandard.ZstdError as error:
        raise WireError(f"a compressed tensor is damaged: {error}; it must be sent again") from error
