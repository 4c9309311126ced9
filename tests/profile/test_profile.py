"""Profiles: values, files, published tables, statistics, and a real measurement."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeward.errors import ConfigError, PlanError, StoreError
from edgeward.graph.chain import cut
from edgeward.profile import profiler
from edgeward.profile.file import load_profile, save_profile
from edgeward.profile.measure import Samples, pieces_of, summarise
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile
from edgeward.profile.profiler import ProfileOptions, as_profile, profile_chain
from edgeward.zoo.reference import build


def small_profile(**changes):
    blocks = tuple(BlockCost(name=f"b{index}", output_bytes=10 * index) for index in range(3))
    times = {"pi": DeviceTimes(seconds=(1.0, 2.0, 3.0), low=(0.5, 2.0, 2.0), high=(2.0, 4.0, 3.0), joined=(0.25, 0.5))}
    return Profile(**{"model": "m", "fingerprint": "f", "input_bytes": 7, "blocks": blocks, "times": times, **changes})


def test_segments_and_quantiles():
    times = small_profile().times["pi"]
    assert times.segment(0, 2) == 6 - 0.75
    assert times.segment(1, 1) == 2.0
    assert times.at(0.9) == (2.0, 4.0, 3.0)
    assert times.at(0.7) == pytest.approx((1.5, 3.0, 3.0))
    assert times.at(0.1) == (0.5, 2.0, 2.0)
    with pytest.raises(PlanError, match=r"quantile 0.95 .* 0.1 to 0.9"):
        times.at(0.95)


def test_files_come_back_as_they_were_and_devices_merge(tmp_path):
    profile = small_profile()
    save_profile(profile, tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json") == profile
    other = small_profile(times={"box": DeviceTimes(seconds=(0.1, 0.1, 0.1))})
    assert set(profile.merge(other).times) == {"pi", "box"}
    with pytest.raises(PlanError, match="different networks"):
        profile.merge(small_profile(fingerprint="g"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no 'blocks'"),
        ('{"format": 9, "blocks": []}', "profile format 9"),
        ('{"format": 1, "blocks": []}', "model"),
        ('{"blocks": [{"a": 1}]}', "neither a profile nor a published table"),
    ],
)
def test_files_that_are_no_profiles(tmp_path, text, message):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=message):
        load_profile(path)


def test_impossible_values_are_refused():
    with pytest.raises(PlanError, match="cannot read"):
        load_profile(pytest.importorskip("pathlib").Path("absent.json"))
    with pytest.raises(ValidationError, match="2 values for 1 blocks"):
        DeviceTimes(seconds=(1.0,), low=(1.0, 2.0))
    with pytest.raises(ValidationError, match="times are at least 0"):
        DeviceTimes(seconds=(-1.0,))
    with pytest.raises(ValidationError, match="times of 1 blocks"):
        small_profile(times={"pi": DeviceTimes(seconds=(1.0,))})


def test_a_published_table_loads(shared_data):
    profile = load_profile(shared_data / "golden" / "scission" / "resnet50.json")
    assert len(profile.blocks) == 24
    assert profile.input_bytes == 150_000
    assert profile.blocks[0].layers == (0, 1)
    assert sum(profile.times["raspi4"].seconds) == pytest.approx(0.961398363, abs=1e-9)


def rounds(wall, cpu, count=5):
    samples = Samples.empty(tuple(wall))
    for _ in range(count):
        samples = samples.plus({piece: (wall[piece], cpu[piece]) for piece in wall})
    return samples


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.001, 1.0), min_size=3, max_size=8), st.randoms(use_true_random=False))
def test_joined_segments_give_the_whole_and_the_pairs(seconds, random):
    """Where savings add up, every stretch is predicted exactly."""
    saved = [0.3 * min(a, b) * random.random() for a, b in itertools.pairwise(seconds)]
    wall = {(k, k): value for k, value in enumerate(seconds)}
    wall |= {(k, k + 1): seconds[k] + seconds[k + 1] - saved[k] for k in range(len(saved))}
    wall[0, len(seconds) - 1] = sum(seconds) - sum(saved)
    times = summarise(rounds(wall, wall), len(seconds), threads=1)
    for first in range(len(seconds)):
        for last in range(first, len(seconds)):
            expected = sum(seconds[first : last + 1]) - sum(saved[first:last])
            assert times.segment(first, last) == pytest.approx(expected, rel=1e-9)
    assert set(pieces_of(len(seconds), fuses=True)) == set(wall)


def test_rationed_processor_time_is_spread_over_all_blocks():
    """A device with a quarter of the processor: short calls run at full speed, one in a few waits out the pause."""
    random = np.random.default_rng(0)
    cpu = {(0, 0): 0.001, (1, 1): 0.003, (0, 1): 0.004}
    samples = Samples.empty(tuple(cpu))
    for _ in range(400):
        waits = {piece: 0.012 * random.poisson(value * 3 / 0.012) for piece, value in cpu.items()}
        samples = samples.plus({piece: (value + waits[piece], value) for piece, value in cpu.items()})
    times = summarise(samples, 2, threads=1)
    assert times.seconds == pytest.approx((0.004, 0.012), rel=0.1)
    assert times.whole == pytest.approx(0.016, rel=0.1)
    assert "rationed" in times.notes[0]


def test_a_clock_that_is_too_coarse_is_refused():
    wall = {(0, 0): 0.0, (1, 1): 1.0, (0, 1): 1.0}
    with pytest.raises(ValueError, match="too coarse"):
        summarise(rounds(wall, wall), 2, threads=1)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_measuring_a_real_network(backend):
    chain = cut(build("cifar-resnet20"), torch.rand(1, 3, 32, 32))
    steps = []
    times = profile_chain(chain, ProfileOptions(backend, repeats=5), lambda done, total, _: steps.append((done, total)))
    assert len(times.seconds) == len(chain)
    assert min(times.seconds) > 0
    assert all(low <= middle <= high for low, middle, high in zip(times.low, times.seconds, times.high, strict=True))
    assert bool(times.joined) == (backend == "onnxruntime")
    if times.joined:
        assert times.segment(0, len(chain) - 1) == pytest.approx(times.whole, rel=1e-6)
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    profile = as_profile(chain, "cifar-resnet20").model_copy(update={"times": {"here": times}})
    assert Profile.model_validate(json.loads(json.dumps(profile.model_dump(mode="json")))) == profile


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    chain = cut(build("cifar-resnet20"), torch.rand(1, 3, 32, 32))
    options = ProfileOptions("torch", repeats=6)
    partial = tmp_path / ".p.partial"
    ran = []
    honest = profiler.run_round

    def stops(calls, repeats):
        if len(ran) == 4:
            raise KeyboardInterrupt
        ran.append(1)
        return honest(calls, repeats)

    monkeypatch.setattr(profiler, "run_round", stops)
    with pytest.raises(KeyboardInterrupt):
        profile_chain(chain, options, partial=partial)
    kept = json.loads(partial.read_text())
    monkeypatch.setattr(profiler, "run_round", lambda *given: ran.append(1) or honest(*given))
    assert profile_chain(chain, options, partial=partial).repeats == 6
    assert len(ran) == 6
    assert not partial.exists()
    assert len(kept["samples"]["0-0"][0]) == 4
    partial.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        profile_chain(chain, options, partial=partial)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"backend": "tf"}, "choose one of"), ({"threads": 0}, "threads is 0"), ({"repeats": 2}, "repeats is 2")],
)
def test_options_name_their_range(change, message):
    with pytest.raises(ConfigError, match=message):
        ProfileOptions(**change)
