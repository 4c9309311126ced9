"""A codec of up to three stages: zeros left out, values written in fewer bits, the bytes compressed.

    codec = Staged(Affine("int8", 8, Rounding()), zero=True, squeeze=True)

Arrays that are not floats, and floats that no fewer bits can hold (NaN, infinities), travel as they are.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
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
from edgeward.wire.codecs.bits import packed, packed_bytes, unpacked
from edgeward.wire.codecs.quantise import Quantiser, Whole, extent

__all__ = ["Staged"]

_CONVERSION = {2: (2.0**-11, 2.0**-24), 4: (0.0, 0.0), 8: (2.0**-24, 2.0**-149)}
"""By bytes of a type: the largest relative and absolute error between it and float32."""

_LEVEL = 1
"""Of zstd: what a weak core can pay for a thin link."""
_FLOATS = ("<f2", "<f4", "<f8")
_LARGEST_HALF = np.float32(65_504)


class Staged(Codec):
    """zero: leave code 0 out where a bitmap costs less. squeeze: use zstd. suffix: of the name, for what rounds."""

    def __init__(self, quantiser: Quantiser, *, zero: bool = False, squeeze: bool = False, suffix: str = "") -> None:
        self._quantiser, self._zero, self._squeeze = quantiser, zero, squeeze
        self.lossless = isinstance(quantiser, Whole)
        self.name = quantiser.name + suffix + ("+zero" if zero else "") + ("+zstd" if squeeze else "")

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
        if values is None or not values.size or (self.lossless and not (self._zero and array.dtype.itemsize <= 4)):
            return plain
        found = self._quantiser.of(array.shape).codes(values)
        if found is None:
            return plain
        flags, front, (parameters, codes) = 0, b"", found
        if self._zero and (codes.size - int(np.count_nonzero(codes))) * self._quantiser.bits > codes.size:
            from edgeward.wire.codecs.kernels import without_zeros

            bitmap, codes = without_zeros(codes)
            flags, front = ZERO, struct.pack("<Q", codes.size) + bitmap.tobytes()
        body = b"".join([front, parameters, packed(codes, self._quantiser.bits)])
        return (flags, body) if len(body) < len(plain[1]) else plain

    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        head, rest = read_head(data, max_bytes)
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
        if not head.count:
            raise WireError("a tensor without values says that it was made smaller; it is damaged, send it again")
        values = self._values(body, head)
        if head.dtype.itemsize == 2:  # the nearest code may lie above the largest half
            values = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF)
        return values.astype(head.dtype, copy=False).reshape(head.shape)

    def _values(self, body: memoryview, head: Head) -> Floats:
        quantiser, bitmap, kept = self._quantiser.of(head.shape), None, head.count
        if head.flags & ZERO:
            bitmap, kept, body = _bitmap(body, head.count)
        start = quantiser.parameter_bytes(head.count)
        expected = start + packed_bytes(kept, quantiser.bits)
        if body.nbytes != expected:
            raise WireError(f"{kept} values in {body.nbytes} bytes; {self.name!r} needs {expected}; send it again")
        codes = unpacked(body[start:], quantiser.bits, kept)
        if bitmap is not None:
            from edgeward.wire.codecs.kernels import with_zeros

            codes = with_zeros(bitmap, np.append(codes, codes.dtype.type(0)), head.count)
        return quantiser.values(body[:start], codes)

    def error_bound(self, array: Array) -> float:
        array = np.asarray(array)
        values = _floats(array)
        if self.lossless or values is None or not values.size:
            return 0.0
        own = self._quantiser.of(array.shape).bound(values)
        # Relative and absolute error of float32 as this type, or of this type as float32.
        relative, least = _CONVERSION[array.dtype.itemsize]
        return own + (extent(values) + own) * relative + least


def _floats(array: Array) -> Floats | None:
    """The values in a row as float32, or None when they are not floats, or not finite as float32."""
    if array.dtype.kind != "f" or array.dtype.newbyteorder("<").str not in _FLOATS:
        return None
    with np.errstate(over="ignore"):
        values = np.require(array, np.float32, ["C", "W"]).reshape(
            -1
        )  # compiled loops take only what may be written to
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        return None
    return values


def _bitmap(body: memoryview, count: int) -> tuple[npt.NDArray[np.uint8], int, memoryview]:
    """Where codes are, how many there are, and what comes after the bitmap."""
    end = 8 + (count + 7) // 8
    if body.nbytes < end:
        raise WireError("the bitmap of an encoded tensor is cut short; it must be sent again")
    kept = int(struct.unpack_from("<Q", body)[0])
    bitmap = np.frombuffer(body[8:end], np.uint8).copy()
    spare = bitmap[-1] >> (count % 8) if count % 8 else 0
    if int(np.bitwise_count(bitmap).sum(dtype=np.int64)) != kept or spare:
        raise WireError("the bitmap of an encoded tensor is damaged; it must be sent again")
    return bitmap, kept, body[end:]


def _unsqueezed(data: memoryview, length: int) -> memoryview:
    try:
        size = zstandard.frame_content_size(bytes(data[:32]))
        if size != length:
            raise WireError(f"a compressed tensor of {size} bytes was announced as {length}; it is damaged")
        return memoryview(zstandard.ZstdDecompressor().decompress(data, max_output_size=length, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise WireError(f"a compressed tensor is damaged: {error}; it must be sent again") from error
