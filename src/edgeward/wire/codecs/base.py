"""What every codec is, and the blob it makes.

    codec = parse_codec("int8+zstd")
    blob = codec.encode(array)
    same_shape = decode_any(blob)

A blob says what it holds, so that whoever gets it needs to be told nothing: magic "EC", version, flags, the codec's
name, dtype, shape, and the length of its body before compression.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import WireError
from edgeward.units import format_bytes

__all__ = ["MAX_BYTES", "RAW", "SQUEEZED", "ZERO", "Array", "Codec", "Floats", "Head", "read_head", "write_head"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

MAX_BYTES = 1 << 30
"""Bytes that a decoded array has at most unless the caller allows more."""
RAW, ZERO, SQUEEZED = 1, 2, 4
"""Flags of a blob: values as they were; zeros left out, a bitmap says where; body compressed by zstd."""

_MAGIC = b"EC"
_VERSION = 1
_FIXED = struct.Struct("<2sBBBBBQ")
_DTYPES = ["|b1", "|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8", "<c8", "<c16"]
_MAX_DIMENSIONS = 32


@dataclass(frozen=True)
class Head:
    """The first part of a blob. body_bytes: length of the body before compression."""

    name: str
    flags: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    body_bytes: int

    @property
    def count(self) -> int:
        """Values of the array."""
        return math.prod(self.shape)


def write_head(head: Head) -> bytes:
    """The head as bytes. Raises WireError for a type or a number of dimensions that has no place in it."""
    if len(head.shape) > _MAX_DIMENSIONS:
        raise WireError(
            f"arrays of {len(head.shape)} dimensions cannot be encoded; at most {_MAX_DIMENSIONS}, reshape them"
        )
    try:
        kind = _DTYPES.index(head.dtype.str)
    except ValueError as error:
        raise WireError(f"arrays of {head.dtype} cannot be encoded; use one of {', '.join(_DTYPES)}") from error
    name = head.name.encode()
    fixed = _FIXED.pack(_MAGIC, _VERSION, head.flags, len(name), kind, len(head.shape), head.body_bytes)
    return fixed + name + struct.pack(f"<{len(head.shape)}Q", *head.shape)


def read_head(blob: bytes | memoryview, max_bytes: int) -> tuple[Head, memoryview]:
    """The head, and what comes after it. Raises WireError for other bytes and for an array above `max_bytes`."""
    try:
        data = memoryview(blob).cast("B")
    except TypeError as error:
        raise WireError(f"a {type(blob).__name__} is no encoded tensor; pass the bytes that encode gave") from error
    if data.nbytes < _FIXED.size:
        raise WireError(f"{data.nbytes} bytes are no encoded tensor; its head alone has {_FIXED.size}")
    magic, version, flags, name_bytes, kind, dimensions, body_bytes = _FIXED.unpack_from(data)
    if magic != _MAGIC:
        raise WireError(f"the bytes begin with {magic!r}; an encoded tensor begins with {_MAGIC!r}")
    if version != _VERSION:
        raise WireError(
            f"the tensor is of codec version {version}, this edgeward reads {_VERSION}; upgrade the older host"
        )
    end = _FIXED.size + name_bytes + 8 * dimensions
    if flags > RAW | ZERO | SQUEEZED or kind >= len(_DTYPES) or dimensions > _MAX_DIMENSIONS or data.nbytes < end:
        raise WireError("the head of an encoded tensor is damaged; it must be sent again")
    name = bytes(data[_FIXED.size : _FIXED.size + name_bytes])
    shape = struct.unpack_from(f"<{dimensions}Q", data, _FIXED.size + name_bytes)
    dtype = np.dtype(_DTYPES[kind])
    size = math.prod(shape) * dtype.itemsize
    # An array without values may still claim dimensions that NumPy cannot count.
    if math.prod(side for side in shape if side) * dtype.itemsize > np.iinfo(np.intp).max:
        raise WireError(f"no tensor has the shape {list(shape)}; it is damaged and must be sent again")
    if size > max_bytes or body_bytes > 2 * size + (1 << 16):
        raise WireError(f"a tensor of {format_bytes(size)} is announced; at most {format_bytes(max_bytes)} are allowed")
    return Head(name.decode("ascii", "replace"), flags, dtype, shape, body_bytes), data[end:]


class Codec(ABC):
    """Writes an array as bytes and reads it back.

    name: `parse_codec(name)` gives an equal codec. lossless: whether what is read equals what was written.
    """

    name: str
    lossless: bool

    @abstractmethod
    def encode(self, array: Array) -> bytes:
        """The array as a blob. Raises WireError when this codec cannot take it."""

    @abstractmethod
    def decode(self, data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
        """The array of a blob. Raises WireError when it is not one of this codec, damaged, or above `max_bytes`."""

    @abstractmethod
    def error_bound(self, array: Array) -> float:
        """The largest absolute error that a value of this array can have after decoding."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codec) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"parse_codec({self.name!r})"
