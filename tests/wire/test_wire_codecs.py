"""Codecs: what is decoded stays within the promised bound, encodes to itself, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeward.errors import ConfigError, EdgewardError, WireError
from edgeward.wire.codecs import CODECS, decode_any, parse_codec
from edgeward.wire.codecs.feedback import ErrorFeedback
from edgeward.wire.codecs.figures import CodecFigures, measure_codec, worth_it

WAYS = ["identity", "fp16", "bf16", "int8", "int4", "int8c", "int4c", "float8-e4m3", "float8-e5m2", "float6-e3m2",
        "float4-e3m0", "float8-e4m3@256", "float4-e3m0@7", "float6-e3m2@4"]  # fmt: skip
NAMES = [*WAYS, "int8+zero", "int4+zero+zstd", "float4-e3m0+zero+zstd", "identity+zero+zstd", "fp16+zstd"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
ADVERSARIAL = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 65519.9, 65520.0, 2**-14]),
    st.floats(-1, 1, width=32),
)
FLOATS = hnp.arrays(np.float32, SHAPES, elements=ADVERSARIAL)
BRIEF = np.float32([1.0, -0.5, 0.3, 0.001, 0, 2**-14, 2**-15, 1.0625, -0.3])


def relu(shape=(1, 32, 24, 24), seed=0):
    return np.maximum(np.random.default_rng(seed).normal(size=shape).astype(np.float32) - 0.6, 0)


@pytest.mark.parametrize("name", NAMES)
@given(array=FLOATS)
@settings(max_examples=120, deadline=None)
def test_errors_stay_within_the_bound_and_what_was_decoded_encodes_to_itself(name, array):
    codec = parse_codec(name)
    found = decode_any(codec.encode(array), max(array.nbytes, 1))
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(np.isnan(found), np.isnan(array))
    finite = np.isfinite(array)
    assert np.array_equal(found[~finite], array[~finite], equal_nan=True)
    if array.size and finite.all():
        error = float(np.abs(found.astype(np.float64) - array).max())
        assert error <= codec.error_bound(array)
        assert not codec.lossless or error == 0
    again = codec.decode(codec.encode(found))
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("name", [*NAMES, "int8+stochastic", "uint8"])
@given(array=st.one_of(hnp.arrays(np.int64, SHAPES), hnp.arrays(np.bool_, SHAPES), hnp.arrays(np.uint8, SHAPES)))
@settings(max_examples=20, deadline=None)
def test_whole_numbers_and_masks_pass_unchanged_through_every_codec(name, array):
    np.testing.assert_array_equal(decode_any(parse_codec(name).encode(array)), array)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_and_layouts_keep_type_and_bound(name, dtype):
    array = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(dtype)[:, ::2].transpose(2, 0, 1)
    codec = parse_codec(name)
    found = codec.decode(codec.encode(array))
    assert found.dtype == np.dtype(dtype).newbyteorder("<")
    assert float(np.abs(found.astype(np.float64) - array).max()) <= codec.error_bound(array) + 1e-12


@pytest.mark.parametrize("name", [*NAMES, "int8+stochastic", "uint8"])
def test_arrays_that_may_not_be_written_to_are_encoded_and_stay_as_they_are(name):
    array = np.clip(relu((1, 4, 8, 8)), 0, 1)
    frozen = array.copy()
    frozen.flags.writeable = False
    assert parse_codec(name).encode(frozen) == parse_codec(name).encode(array)
    np.testing.assert_array_equal(frozen, array)


@pytest.mark.parametrize(
    ("name", "codes", "values"),
    [
        ("float8-e4m3", "78 f0 6a 28 00 08 00 79 ea", [1, -0.5, 0.3125, 0.0009765625, 0, 2**-14, 0, 1.125, -0.3125]),
        ("float8-e5m2", "7c f8 75 54 00 44 40 7c f5", [1, -0.5, 0.3125, 0.0009765625, 0, 2**-14, 2**-15, 1, -0.3125]),
    ],
)
def test_golden_codes_of_one_block(name, codes, values):
    blob = parse_codec(name).encode(BRIEF)
    assert blob[-9:] == bytes.fromhex(codes.replace(" ", ""))
    assert blob[-10] == 127
    np.testing.assert_array_equal(decode_any(blob), np.float32(values))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("float6-e3m2", [1, -0.5, 0.3125, 0, 0, 0, 0, 1, -0.3125]),
        ("float4-e3m0", [1, -0.5, 0.25, 0, 0, 0, 0, 1, -0.25]),
    ],
)
def test_golden_values_of_packed_codes(name, values):
    np.testing.assert_array_equal(decode_any(parse_codec(name).encode(BRIEF)), np.float32(values))


def test_the_largest_exponent_is_taken_after_rounding():
    blob = parse_codec("float8-e4m3").encode(np.float32([1.97, 1.0]))
    assert (blob[-3], blob[-2:]) == (128, bytes([0x78, 0x70]))


@pytest.mark.parametrize("name", WAYS)
def test_tiny_gradients_lose_nothing_relative_to_their_size(name):
    gradient = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    codec = parse_codec(name)
    large, small = (
        codec.decode(codec.encode(scale * gradient)) / scale for scale in (np.float32(1), np.float32(2**-20))
    )
    if name != "fp16":  # its exponent is not shared: that is what a shared one is for
        np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["int8", "int8c", "float8-e4m3", "float8-e5m2"])
def test_eight_bits_take_about_a_quarter(name):
    array = np.random.default_rng(0).normal(size=(1, 64, 56, 56)).astype(np.float32)
    assert len(parse_codec(name).encode(array)) <= 0.26 * array.nbytes


def test_four_bits_without_zeros_make_a_sparse_map_fifteen_times_smaller():
    for name in ("int4+zero+zstd", "float4-e3m0+zero+zstd"):
        assert len(parse_codec(name).encode(relu())) * 15 <= relu().nbytes


@pytest.mark.parametrize("name", ["int8+stochastic", "int4+stochastic", "float8-e4m3+stochastic"])
def test_rounding_by_chance_is_right_on_average_and_seeded(name):
    values = np.append(np.full(40_000, 0.337, np.float32), np.float32([0, 1]))
    first, second = (parse_codec(name).encode(values) for _ in range(2))
    assert first == second
    found = decode_any(first)
    assert len(np.unique(found)) > 1
    assert float(found[:-2].mean()) == pytest.approx(0.337, rel=5e-3)
    assert float(np.abs(found - values).max()) <= parse_codec(name).error_bound(values)


def test_channels_of_different_size_do_not_disturb_each_other():
    array = (
        np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32) * np.float32([1, 100, 1e4])[:, None, None]
    )
    errors = {
        name: np.abs(parse_codec(name).decode(parse_codec(name).encode(array)) - array).max(axis=(0, 2, 3))
        for name in ("int8", "int8c")
    }
    assert errors["int8"][0] == np.abs(array[:, 0]).max()  # below half a step of the largest channel: all of it is zero
    assert errors["int8c"][0] < errors["int8"][0] / 200
    assert errors["int8c"][2] <= errors["int8"][2] * 1.01


@pytest.mark.parametrize("name", [*NAMES, "uint8+zstd", "png+zero", "int8c+zero", "identity+stochastic", "fp16+stochastic",
                                  "", "int9", "float8", "float8-e9m9", "int8+", "int8+zst", "x" * 1000, "jpeg101", "float8-e2m5"])  # fmt: skip
def test_a_name_gives_its_own_codec_or_a_clear_refusal(name):
    try:
        assert parse_codec(name).name == name
        assert parse_codec(name) == parse_codec(name)
    except ConfigError as error:
        assert name not in NAMES
        assert name[:20] in str(error)
    assert all(parse_codec(known).name == known for known in CODECS)


@given(data=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused(data):
    for start in (b"", b"EC\x01", parse_codec("int8+zero+zstd").encode(relu((4, 9)))[:40]):
        with pytest.raises(WireError):
            decode_any(start + data, 1 << 16)


@pytest.mark.parametrize("name", [*NAMES, "uint8", "png", "jpeg90"])
def test_damage_is_refused_or_gives_an_array_of_the_announced_size(name):
    array = np.clip(relu((1, 3, 9, 14)), 0, 1)
    blob = parse_codec(name).encode(array)
    random = np.random.default_rng(0)
    for number in range(400):
        bad = bytearray(blob)
        if number % 2:
            bad = bad[: random.integers(len(bad))]
        else:
            for _ in range(random.integers(1, 4)):
                bad[random.integers(len(bad))] ^= 1 << int(random.integers(8))
        try:
            assert decode_any(bytes(bad), 1 << 16).nbytes <= 1 << 16
        except EdgewardError as error:
            assert str(error)


@pytest.mark.parametrize("name", NAMES)
def test_more_than_allowed_is_refused_before_it_is_made(name):
    array = relu((64, 64))
    with pytest.raises(WireError, match="at most"):
        decode_any(parse_codec(name).encode(array), array.nbytes - 1)


@pytest.mark.parametrize("name", ["uint8", "png", "jpeg90"])
def test_pictures_come_back_within_the_bound_and_others_are_refused(name):
    ramp = np.linspace(0, 1, 3 * 24 * 32, dtype=np.float32).reshape(1, 3, 24, 32)
    codec = parse_codec(name)
    found = codec.decode(codec.encode(ramp))
    assert found.shape == ramp.shape
    assert float(np.abs(found - ramp).max()) <= (codec.error_bound(ramp) if name != "jpeg90" else 0.12)
    if name != "jpeg90":
        np.testing.assert_array_equal(codec.decode(codec.encode(found)), found)
    with pytest.raises(WireError, match="from 0 to 1"):
        codec.encode(ramp - 0.5)
    if name != "uint8":
        with pytest.raises(WireError, match="takes pictures"):
            codec.encode(ramp[:, :2])


def test_error_feedback_loses_nothing_for_good():
    feedback = ErrorFeedback(parse_codec("float4-e3m0"))
    gradient = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    sums = np.zeros(1000)
    for step in range(1, 101):
        sums += decode_any(feedback.encode(gradient))
        assert np.abs(sums / step - gradient).max() <= 1.5 * np.abs(gradient).max() / step + 1e-5
    feedback.encode(np.ones(3, np.float32))
    assert feedback.residual.shape == (3,)
    feedback.encode(np.float32([np.inf, 1, 2]))
    assert feedback.residual is None
    feedback.reset()
    assert feedback.residual is None


def test_a_codec_pays_on_thin_links_only():
    figures = CodecFigures(1_000_000, 250_000, 0.001, 0.001, 0, 0)
    assert worth_it(figures, 1e9)
    assert not worth_it(figures, 10e9)
    measured = measure_codec(parse_codec("int8"), relu(), 3)
    assert measured.max_error <= measured.error_bound
    assert measured.encoded_bytes < measured.raw_bytes / 3.9
    assert min(measured.encode_seconds, measured.decode_seconds) > 0
