"""Shared-exponent floats bit by bit, rounding by chance, error feedback."""

from __future__ import annotations

import numpy as np
import pytest

from edgeward.wire.codecs import parse_codec

# Computed by hand from the formulas (sign | exponent - lowest + 1 | mantissa, shared e_max after rounding).
INPUT = np.array([1.0, -0.5, 0.3, 0.001, 0, 2**-14, 2**-15, 1.0625, -0.3], np.float32)
GOLDEN = {
    "float8-e4m3": ("78f06a280008007 9ea", [1, -0.5, 0.3125, 0.0009765625, 0, 2**-14, 0, 1.125, -0.3125]),
    "float8-e5m2": ("7cf87554004440 7cf5", [1, -0.5, 0.3125, 0.0009765625, 0, 2**-14, 2**-15, 1, -0.3125]),
    "float6-e3m2": ("1c3815000000001c35", [1, -0.5, 0.3125, 0, 0, 0, 0, 1, -0.3125]),
    "float4-e3m0": ("070e0500000000070d", [1, -0.5, 0.25, 0, 0, 0, 0, 1, -0.25]),
}


def codes_of(blob: bytes, bits: int, count: int) -> list[int]:
    """The last codes of a blob, unpacked: two in a byte (low half first), four in three bytes (low bits first)."""
    size = -(-count // 4) * 3 if bits == 6 else -(-count * bits // 8)
    number = int.from_bytes(bytes(blob)[-size:], "little")
    return [(number >> (bits * index)) & ((1 << bits) - 1) for index in range(count)]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_codes(name):
    codes, values = GOLDEN[name]
    codec = parse_codec(name)
    blob = codec.encode(INPUT)
    assert codes_of(blob, int(name[5]), 9) == list(bytes.fromhex(codes.replace(" ", "")))
    assert codec.decode(blob).tolist() == values


def test_the_shared_exponent_is_taken_after_rounding():
    blob = parse_codec("float8-e4m3").encode(np.array([1.97, 1.0], np.float32))
    assert codes_of(blob, 8, 2) == [0x78, 0x70]


@pytest.mark.parametrize(("name", "mantissa", "exponent"), [("float8-e4m3", 3, 4), ("float8-e5m2", 2, 5), ("float6-e3m2", 2, 3), ("float4-e3m0", 0, 3)])  # fmt: skip
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-30, 1e30])
def test_relative_error_sign_and_flush(name, mantissa, exponent, scale):
    array = (np.random.default_rng(0).normal(size=100_000) * scale).astype(np.float32)
    found = parse_codec(name).decode(parse_codec(name).encode(array))
    step = 2.0 ** -(mantissa + 1)
    kept = found != 0
    off = np.abs(found[kept].astype(np.float64) / array[kept].astype(np.float64) - 1)
    assert off.max() <= step / (1 + step) * (1 + 1e-6)
    assert (np.sign(found[kept]) == np.sign(array[kept])).all()
    largest = np.frexp(np.abs(found).max())[1] + 126
    assert np.abs(array[~kept]).max(initial=0) < 2.0 ** (largest - 127 - 2**exponent + 2)


@pytest.mark.parametrize("name", ["float8-e4m3", "float8-e5m2", "float6-e3m2", "float4-e3m0", "float8-e4m3@256"])
def test_tiny_gradients_lose_nothing(name):
    array = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    scale = np.float32(2.0**-20)
    codec = parse_codec(name)
    large, small = codec.decode(codec.encode(array)), codec.decode(codec.encode(array * scale))
    assert np.array_equal(large * scale, small)


def test_known_noise_of_gaussian_values():
    """RMSE and share flushed of N(0, 1), 100 000 values in one block: measured elsewhere with tensor operations."""
    array = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    for name, rmse, flushed in [("float8-e5m2", 0.0527, 0), ("float8-e4m3", 0.0265, 0.0003), ("float6-e3m2", 0.0535, 0.047), ("float4-e3m0", 0.194, 0.037)]:  # fmt: skip
        found = parse_codec(name).decode(parse_codec(name).encode(array))
        assert np.sqrt(np.mean((found - array) ** 2)) == pytest.approx(rmse, rel=0.03)
        assert np.mean(found == 0) == pytest.approx(flushed, abs=0.003)


def test_an_outlier_harms_its_own_block_only():
    array = np.random.default_rng(0).normal(size=1024).astype(np.float32)
    array[0] = 1e9
    codec = parse_codec("float4-e3m0@256")
    found = codec.decode(codec.encode(array))
    assert (found[1:256] == 0).all()
    assert np.count_nonzero(found[256:]) > 0.9 * 768


@pytest.mark.parametrize(
    "name", ["int8", "int4", "float8-e4m3", "float6-e3m2", "float4-e3m0", "float8-e4m3@64", "int8c"]
)
def test_rounding_by_chance_is_right_on_average_and_seeded(name):
    values = np.array([1.0, 0.37, -0.21, 0.013, -0.9, 0.61, 0.0, -1.0], np.float32)
    array = np.tile(values, 20_000)
    codec = parse_codec(name + "+stochastic")
    blob = codec.encode(array)
    found = codec.decode(blob).reshape(-1, 8)
    lowest = 0 if name.startswith("int") else 2.0**-6  # below it floats are flushed, which is a bias they declare
    bound = codec.error_bound(array)
    for column, value in enumerate(values):
        if value == 0 or abs(value) >= lowest:
            assert found[:, column].mean() == pytest.approx(value, abs=4 * bound / np.sqrt(20_000) + 1e-6), value
    assert bytes(parse_codec(name + "+stochastic").encode(array)) == bytes(blob)
    assert bytes(codec.encode(array)) != bytes(blob)
