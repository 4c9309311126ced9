"""Zeros are exact in every format, and leaving them out changes nothing but the bytes."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from edgeward.errors import WireError
from edgeward.wire.codecs import decode_any, parse_codec

WAYS = [
    *(["fp16", "bf16", "int8", "int4", "int8c", "int4c", "float8-e4m3", "float8-e5m2", "float6-e3m2", "float4-e3m0"]),
    *(["float8-e4m3@256", "float6-e3m2@5", "float4-e3m0@7", "identity"]),
]
settings = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
arrays = hnp.arrays(
    np.float32,
    st.sampled_from([(40,), (3, 4, 9), (1, 7, 5, 5)]),
    elements=st.one_of(st.just(0.0), st.floats(-1, 1, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    fill=st.just(0.0),
)  # fmt: skip


def heavy_tailed(power: int, zeros: float) -> np.ndarray:
    """Most values lie near zero, where they are rounded to it; few are zero before."""
    random = np.random.default_rng(power)
    array = random.normal(size=(2, 5, 900)) ** power
    array[random.random(array.shape) < zeros] = 0
    array[0, 0, 0] = 0
    return array.astype(np.float32)


@pytest.mark.parametrize("name", WAYS)
@settings
@hypothesis.given(array=arrays)
def test_leaving_zeros_out_gives_the_same_values(name, array):
    plain = decode_any(parse_codec(name).encode(array))
    assert np.array_equal(decode_any(parse_codec(name + "+zero").encode(array)), plain)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("power", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.7])
def test_values_rounded_to_zero_do_not_move_the_others_when_encoded_again(name, power, zeros):
    array = heavy_tailed(power, zeros)
    codec = parse_codec(name + "+zero")
    found = codec.decode(codec.encode(array))
    assert np.array_equal(codec.decode(codec.encode(found)), found)
    assert np.abs(found.astype(np.float64) - array).max() <= codec.error_bound(array)


@pytest.mark.parametrize("stages", ["", "+zero", "+stochastic"])
@pytest.mark.parametrize("name", ["int8", "int4", "int8c", "int4c"])
def test_zero_and_both_ends_of_the_range_are_exact(name, stages):
    for sign in (1, -1):
        for shift in (0.0, 5.0):
            array = (sign * (np.abs(heavy_tailed(3, 0.4)) - shift)).astype(np.float32)
            array[array == -sign * np.float32(shift)] = 0
            found = decode_any(parse_codec(name + stages).encode(array))
            assert not found[array == 0].any()
            assert (found.min(), found.max()) == (array.min(), array.max())


@pytest.mark.parametrize("name", ["int8", "int4c", "float8-e4m3@900", "float4-e3m0"])
def test_values_rounded_to_zero_are_left_out_too(name):
    array = np.abs(heavy_tailed(9, 0.0))
    assert len(parse_codec(name + "+zero").encode(array)) < 0.7 * len(parse_codec(name).encode(array))


def test_negative_zeros_survive_what_is_lossless():
    array = np.float32([0.0, -0.0] * 50 + [0.0] * 100 + [1.5])
    blob = parse_codec("identity+zero").encode(array)
    assert len(blob) < array.nbytes
    assert decode_any(blob).tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["int8+zero", "uint8", "png", "jpeg90", "identity+zstd"])
@pytest.mark.parametrize("dtype", [">i4", "<u8", "?", "<c16", ">c8"])
def test_other_types_keep_their_values_in_every_byte_order(name, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    codec = parse_codec(name)
    found = codec.decode(codec.encode(array))
    assert np.array_equal(found, array)
    assert codec.error_bound(array) == 0.0


@pytest.mark.parametrize("flag", [0x08, 0x40, 0x80])
def test_flags_of_another_version_are_refused(flag):
    blob = bytearray(parse_codec("int8").encode(heavy_tailed(1, 0.0)))
    blob[3] |= flag
    with pytest.raises(WireError):
        decode_any(bytes(blob))


def test_a_range_upside_down_is_refused():
    array = np.linspace(-3, 5, 100, dtype=np.float32)
    blob = parse_codec("int8").encode(array)
    ends = array[[0, -1]]
    with pytest.raises(WireError, match="no range"):
        decode_any(blob.replace(ends.tobytes(), ends[::-1].tobytes()))
