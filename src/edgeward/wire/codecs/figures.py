"""What a codec costs and saves on a real tensor, and whether that pays on a link.

figures = measure_codec(parse_codec("int8"), features)
worth_it(figures, bits_per_second=20e6)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from edgeward.errors import ConfigError
from edgeward.wire.codecs.base import Array, Codec

__all__ = ["CodecFigures", "measure_codec", "worth_it"]


@dataclass(frozen=True)
class CodecFigures:
    """Bytes before and after, median seconds of encoding and decoding, and the errors that were bounded and seen."""

    raw_bytes: int
    encoded_bytes: int
    encode_seconds: float
    decode_seconds: float
    error_bound: float
    max_error: float


def measure_codec(codec: Codec, array: Array, repeats: int = 5) -> CodecFigures:
    """Encode and decode an array `repeats` times, once before for warmth. Raises ConfigError for fewer than 1."""
    if repeats < 1:
        raise ConfigError(f"{repeats} repeats measure nothing; use at least 1")
    blob = codec.encode(array)
    found = codec.decode(blob, array.nbytes)
    encoding = _timed(lambda: codec.encode(array), repeats)
    decoding = _timed(lambda: codec.decode(blob, array.nbytes), repeats)
    error = 0.0
    if array.dtype.kind == "f":
        finite = np.isfinite(array)  # the others come back as they were
        error = float(np.max(np.abs(found[finite].astype(np.float64) - array[finite]), initial=0.0))
    return CodecFigures(array.nbytes, len(blob), encoding, decoding, codec.error_bound(array), error)


def _timed(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def worth_it(figures: CodecFigures, bits_per_second: float) -> bool:
    """Whether the saved bytes take longer on the link than the coding. Raises ConfigError for a rate not above 0."""
    if not bits_per_second > 0:
        raise ConfigError(f"a link of {bits_per_second} bits per second carries nothing; use a rate above 0")
    saved = 8 * (figures.raw_bytes - figures.encoded_bytes) / bits_per_second
    return saved > figures.encode_seconds + figures.decode_seconds
