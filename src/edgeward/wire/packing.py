"""How tensors are packed to cross a link: a transfer layer that shrinks them, a codec that writes them, or both.

    packing = Packing.parse("avg2-bilinear/int8+zstd")
    parts = packing.pack([features])                 # what a message carries
    features = unpack(parts)[0]                      # the receiver needs to be told nothing

A part names its packing, so that a host can unpack what it was never told to expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError, WireError
from edgeward.wire.codecs import Codec, parse_codec
from edgeward.wire.header import Limits
from edgeward.wire.messages import TensorPart

__all__ = ["IDENTITY", "Packing", "unpack"]

Array = npt.NDArray[Any]
_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _NUMPY.items()}


@dataclass(frozen=True)
class Packing:
    """A transfer layer without weights ("" for none), then a codec. Made by `parse`.

    A transfer layer applies to maps [N, C, H, W] of floats; other tensors go through the codec alone.
    """

    transfer: str = ""
    codec: str = "identity"

    @classmethod
    def parse(cls, text: str) -> Packing:
        """Read "int8+zstd", "avg2-bilinear" or "avg2-bilinear/int8". Raises ConfigError when a part is unknown."""
        from edgeward.graph.transfer import parse_transfer

        first, slash, second = text.partition("/")
        if slash:
            return cls(parse_transfer(first).name, parse_codec(second).name)
        try:
            return cls(codec=parse_codec(first).name)
        except ConfigError as unknown:
            if "-" not in first or first.startswith("float"):
                raise
            try:
                return cls(transfer=parse_transfer(first).name)
            except ConfigError:
                raise unknown from None

    @property
    def name(self) -> str:
        """The text that `parse` reads."""
        if not self.transfer:
            return self.codec
        return self.transfer if self.codec == "identity" else f"{self.transfer}/{self.codec}"

    @property
    def lossless(self) -> bool:
        """Whether what is unpacked equals what was packed."""
        return not self.transfer and self._codec.lossless

    def fits(self, shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> bool:
        """Whether a tensor of this shape and type becomes smaller by the transfer layer; always, without one."""
        if not self.transfer:
            return True
        return np.issubdtype(np.dtype(dtype), np.floating) and bool(self._layer.fits(tuple(shape)))

    def pack(self, arrays: Sequence[Array]) -> tuple[TensorPart, ...]:
        """One part per array. Raises WireError or ConfigError when the codec cannot take an array."""
        return tuple(self._part(array) for array in arrays)

    @cached_property
    def _codec(self) -> Codec:
        return parse_codec(self.codec)

    @cached_property
    def _layer(self) -> Any:
        from edgeward.graph.transfer import parse_transfer

        return parse_transfer(self.transfer).eval()

    def _part(self, array: Array) -> TensorPart:
        array = np.ascontiguousarray(array) if array.ndim else array
        kind = _NAMES.get(array.dtype)
        if kind is None:
            raise WireError(f"tensors of type {array.dtype} cannot travel; convert to one of {', '.join(_NUMPY)}")
        if self.transfer and self.fits(array.shape, array.dtype):
            data = self._codec.encode(_resized(self._layer.down, array))
            return TensorPart(self.name, kind, array.shape, memoryview(data))
        if self.codec == "identity":
            return TensorPart("identity", kind, array.shape, array.reshape(-1).data.cast("B"))
        return TensorPart(self.codec, kind, array.shape, memoryview(self._codec.encode(array)))


IDENTITY = Packing()


def unpack(parts: Sequence[TensorPart], limits: Limits | None = None) -> list[Array]:
    """The arrays of a message's parts; of "identity" ones views into it. Raises WireError when they do not decode."""
    limits = limits or Limits()
    return [_array(part, limits.max_bytes) for part in parts]


def _array(part: TensorPart, max_bytes: int) -> Array:
    if part.dtype not in _NUMPY:
        raise WireError(f"tensors of type {part.dtype} cannot be used here; send them as F32")
    dtype = np.dtype(_NUMPY[part.dtype])
    if part.codec == "identity":
        return np.frombuffer(part.data, dtype).reshape(part.shape)
    try:
        packing = Packing.parse(part.codec)
    except ConfigError as error:
        raise WireError(f"a tensor comes in packing {part.codec!r}, which this host does not know: {error}") from error
    if packing.transfer:
        if not packing.fits(part.shape, dtype):
            raise WireError(f"packing {part.codec!r} does not fit a tensor of shape {list(part.shape)}")
        small = packing._codec.decode(part.data, max_bytes)
        found = _resized(lambda one: packing._layer.up(one, tuple(part.shape[-2:])), small)
    else:
        found = packing._codec.decode(part.data, max_bytes)
    if found.shape != part.shape or found.dtype != dtype:
        raise WireError(
            f"a tensor was announced as {part.dtype} {list(part.shape)} and decodes to {found.dtype} "
            f"{list(found.shape)}"
        )
    return found


def _resized(change: Any, array: Array) -> Array:
    import torch

    with torch.inference_mode():
        found: Array = change(torch.from_numpy(array if array.flags.writeable else array.copy())).numpy()
    return np.ascontiguousarray(found)
