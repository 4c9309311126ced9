"""Tensors in fewer bytes: codecs by name.

    codec = parse_codec("float4-e3m0+zero+zstd")
    blob = codec.encode(features)
    features = decode_any(blob)

A name is a way to write values (see `CODECS`), then "+stochastic" to round by chance, "+zero" to leave zeros out,
"+zstd" to compress. "float8-e4m3@256" shares an exponent among 256 values instead of all.
"""

from __future__ import annotations

import functools
import re

from edgeward.errors import ConfigError, WireError, nearest
from edgeward.wire.codecs.base import MAX_BYTES, Array, Codec, read_head
from edgeward.wire.codecs.feedback import ErrorFeedback
from edgeward.wire.codecs.figures import CodecFigures, measure_codec, worth_it
from edgeward.wire.codecs.quantise import Affine, ChannelAffine, Halves, Quantiser, Rounding, Whole
from edgeward.wire.codecs.staged import Staged

__all__ = ["CODECS", "Codec", "CodecFigures", "ErrorFeedback", "decode_any", "measure_codec", "parse_codec", "worth_it"]

CODECS = {
    "identity": "values as they are",
    "fp16": "half precision",
    "bf16": "float32 without its lower half",
    "int8": "256 steps between the smallest and the largest value",
    "int4": "16 steps between the smallest and the largest value",
    "int8c": "int8 for each channel (second axis) on its own",
    "int4c": "int4 for each channel (second axis) on its own",
    "float8-e4m3": "shared exponent, 4 exponent bits, 3 mantissa bits",
    "float8-e5m2": "shared exponent, 5 exponent bits, 2 mantissa bits",
    "float6-e3m2": "shared exponent, 3 exponent bits, 2 mantissa bits",
    "float4-e3m0": "shared exponent, 3 exponent bits, no mantissa",
    "uint8": "pictures with values 0 to 1 as bytes",
    "png": "pictures as PNG",
    "jpeg90": "pictures as JPEG of quality 90 (or another from 1 to 100)",
}
"""Ways to write values, each with what it does."""

_FLOAT = re.compile(r"float([468])-e([2-6])m([0-3])(?:@([1-9][0-9]{0,6}))?")
_STAGES = ("stochastic", "zero", "zstd")
_LONGEST = 64


def parse_codec(text: str) -> Codec:
    """The codec of a name. Raises ConfigError that names the nearest one when there is none."""
    if len(text) > _LONGEST:
        raise ConfigError(f"codec {text[:_LONGEST]!r}... is longer than any; known: {', '.join(CODECS)}")
    base, *stages = text.split("+")
    if len(set(stages)) < len(stages):
        raise ConfigError(f"codec {text!r} names a stage twice; name each of {', '.join(_STAGES)} once at most")
    for stage in stages:
        if stage not in _STAGES:
            raise ConfigError(f"codec {text!r}: there is no stage {stage!r}; {nearest(stage, _STAGES)}")
    if base in ("uint8", "png") or re.fullmatch(r"jpeg[0-9]{0,3}", base):
        if stages:
            raise ConfigError(f"codec {text!r}: pictures take no stages; write {base!r}")
        from edgeward.wire.codecs.images import ImageCodec, PixelCodec

        return PixelCodec() if base == "uint8" else ImageCodec(base)
    stochastic = "stochastic" in stages
    quantiser = _quantiser(base, Rounding(stochastic))
    if stochastic and isinstance(quantiser, Whole | Halves):
        raise ConfigError(f"codec {text!r}: {base!r} does not round by chance; leave '+stochastic' out")
    suffix = "+stochastic" if stochastic else ""
    return Staged(quantiser, zero="zero" in stages, squeeze="zstd" in stages, suffix=suffix)


def _quantiser(base: str, rounding: Rounding) -> Quantiser:
    match = _FLOAT.fullmatch(base)
    if match is not None and base.partition("@")[0] in CODECS:
        from edgeward.wire.codecs.floats import SharedFloat

        return SharedFloat(int(match[2]), int(match[3]), int(match[4] or 0), rounding)
    if base == "identity":
        return Whole()
    if base in ("fp16", "bf16"):
        return Halves(base)
    if base in ("int8", "int4"):
        return Affine(base, int(base[3]), rounding)
    if base in ("int8c", "int4c"):
        return ChannelAffine(base, int(base[3]), rounding)
    raise ConfigError(f"no codec is called {base!r}; {nearest(base, CODECS)}")


@functools.lru_cache(maxsize=64)
def _known(name: str) -> Codec:
    return parse_codec(name)


def decode_any(data: bytes | memoryview, max_bytes: int = MAX_BYTES) -> Array:
    """The array of a blob of any codec, at most `max_bytes` large. Raises WireError when there is none."""
    head, _ = read_head(data, max_bytes)
    try:
        codec = _known(head.name)
    except ConfigError as error:
        raise WireError(f"a tensor is encoded as {head.name!r}, which this host does not know; {error}") from error
    return codec.decode(data, max_bytes)
