"""Lossy array compressors of others, at an error no larger than ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from edgeward.wire.codecs.figures import CodecFigures


def rivals(array: Any, error: float, repeats: int) -> dict[str, CodecFigures]:
    """Those that are installed, at the setting of least bytes whose largest error is at most `error`."""
    found = {}
    for name, tries in (("zfpy", _zfpy), ("blosc2", _blosc2)):
        try:
            candidates = list(tries(array, error))
        except ImportError:
            continue
        kept = [(encode, decode) for encode, decode in candidates if _error(array, decode(encode())) <= error]
        if kept:
            encode, decode = min(kept, key=lambda pair: len(pair[0]()))
            found[name] = _figures(array, encode, decode, repeats)
    return found


Pair = tuple[Callable[[], bytes], Callable[[bytes], Any]]


def _zfpy(array: Any, error: float) -> list[Pair]:
    """Its tolerance is a bound that it stays well below: larger ones are tried, too."""
    import zfpy

    cube = np.ascontiguousarray(array.reshape(array.shape[-3:]))
    return [
        (lambda t=tolerance: zfpy.compress_numpy(cube, tolerance=t), lambda data: zfpy.decompress_numpy(data).reshape(array.shape))
        for tolerance in (error, 1.5 * error, 2 * error, 3 * error, 4 * error)
    ]  # fmt: skip


def _blosc2(array: Any, error: float) -> list[Pair]:
    import blosc2

    blosc2.set_nthreads(1)

    def encode(bits: int, level: int) -> bytes:
        filters, meta = [blosc2.Filter.TRUNC_PREC, blosc2.Filter.BITSHUFFLE], [bits, 0]
        return bytes(
            blosc2.pack_tensor(
                array, cparams={"codec": blosc2.Codec.ZSTD, "clevel": level, "filters": filters, "filters_meta": meta, "nthreads": 1}
            )
        )  # fmt: skip

    return [(lambda b=bits, c=level: encode(b, c), blosc2.unpack_tensor) for bits in range(1, 24) for level in (1, 5)]


def _error(array: Any, found: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - array).max())


def _figures(array: Any, encode: Callable[[], bytes], decode: Callable[[bytes], Any], repeats: int) -> CodecFigures:
    data = encode()
    encoding, decoding = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        encode()
        middle = time.perf_counter()
        decode(data)
        encoding.append(middle - start)
        decoding.append(time.perf_counter() - middle)
    error = _error(array, decode(data))
    return CodecFigures(array.nbytes, len(data), median(encoding), median(decoding), error, error)
