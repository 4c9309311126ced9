"""Packings in profiles: values and files, and a small network measured, planned and packed for real."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from edgeward.cli import app
from edgeward.errors import ConfigError, PlanError, StoreError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.graph.chain import cut
from edgeward.plan.constraints import Constraints
from edgeward.plan.objective import Objective
from edgeward.plan.planner import Planner
from edgeward.profile import packings
from edgeward.profile.file import load_profile, save_profile
from edgeward.profile.packing import PackingCosts, PackingTimes
from edgeward.profile.packings import PackingOptions, load_samples, measure_packings, profile_packings
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile
from edgeward.profile.profiler import as_profile
from edgeward.zoo.reference import build

COSTS = PackingCosts(bytes=(5, None, 2), drop=(0.0, None, None))
TIMES = PackingTimes(pack=(0.1, None, 0.2), unpack=(0.3, None, 0.4))


def profile(**changes) -> Profile:
    blocks = (BlockCost(name="a", output_bytes=10), BlockCost(name="b", output_bytes=4))
    times = {"pi": DeviceTimes(seconds=(1.0, 2.0), packings={"int8": TIMES})}
    values = {"model": "m", "fingerprint": "f", "input_bytes": 7, "blocks": blocks, "times": times}
    return Profile(**{**values, "packings": {"int8": COSTS}, **changes})


@pytest.fixture(scope="module")
def chain():
    return cut(build("cifar-resnet20"), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_files_keep_packings_and_old_files_load(tmp_path):
    save_profile(profile(), tmp_path / "p.json")
    assert load_profile(tmp_path / "p.json") == profile()
    old = json.loads((tmp_path / "p.json").read_text())
    del old["packings"], old["times"]["pi"]["packings"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    bare = load_profile(tmp_path / "old.json")
    assert (bare.packings, bare.times["pi"].packings) == ({}, {})


def test_merging_takes_the_others_sizes_and_keeps_drops_it_does_not_know():
    known = profile().with_drops("int8", (None, None, 0.01))
    other = profile(
        packings={"int8": PackingCosts(bytes=(6, None, 3), drop=(0.0, None, None)), "fp16": COSTS},
        times={"box": DeviceTimes(seconds=(1.0, 1.0))},
    )
    both = known.merge(other)
    assert both.packings["int8"] == PackingCosts(bytes=(6, None, 3), drop=(0.0, None, 0.01))
    assert set(both.packings) == {"int8", "fp16"}
    assert both.times["pi"].packings == {"int8": TIMES}
    assert other.merge(known).packings["int8"].bytes == (5, None, 2)


@pytest.mark.parametrize(
    ("name", "drops", "message"),
    [("int9", (0, 0, 0), "did you mean 'int8'"), ("int8", (0, 0), "2 drops"), ("int8", (0, 0, 3), "from -1 to 1")],
)
def test_drops_that_do_not_fit_are_refused(name, drops, message):
    with pytest.raises(PlanError, match=message):
        profile().with_drops(name, drops)


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: PackingCosts(bytes=(1,), drop=()), "0 drops for 1 boundaries"),
        (lambda: PackingCosts(bytes=(-1,), drop=(0.0,)), "at least 0"),
        (lambda: PackingTimes(pack=(-1.0,), unpack=(0.0,)), "at least 0"),
        (lambda: PackingTimes(pack=(1.0,), unpack=()), "one per boundary"),
        (lambda: profile(packings={"identity": COSTS}), "leave it out"),
        (lambda: profile(packings={"int8": PackingCosts(bytes=(1,), drop=(0.0,))}), "1 boundaries, the model 3"),
        (lambda: DeviceTimes(seconds=(1.0,), packings={"int8": TIMES}), "3 times for 1 blocks, expected 2"),
    ],
)
def test_impossible_values_are_refused(build_it, message):
    with pytest.raises(ValidationError, match=message):
        build_it()


def test_a_small_network_is_measured_and_planned_with_packings(chain):
    samples = [np.random.default_rng(seed).random((1, 3, 32, 32), dtype=np.float32) for seed in range(3)]
    names = ["identity+zstd", "int8+zstd", "avg2-bilinear"]
    costs, times = measure_packings(chain, names, samples=samples, repeats=3)
    sizes = [chain.input_bytes, *(cost.output_bytes for cost in chain.costs)]
    assert list(costs) == list(times) == names
    for one in costs.values():
        assert len(one.bytes) == len(chain) + 1
    assert set(costs["identity+zstd"].drop) == {0.0}
    assert set(costs["int8+zstd"].drop) == {None}
    assert all(small < size for small, size in zip(costs["int8+zstd"].bytes[:-1], sizes, strict=False))
    assert sizes[0] // 4 <= costs["avg2-bilinear"].bytes[0] < sizes[0] // 3
    assert costs["avg2-bilinear"].bytes[-1] is None
    assert times["avg2-bilinear"].pack[-1] is None
    for name in names:
        for size, pack, unpack in zip(costs[name].bytes, times[name].pack, times[name].unpack, strict=True):
            assert (size is None) == (pack is None) == (unpack is None)
            assert size is None or (pack > 0 and unpack > 0)
    seconds = DeviceTimes(seconds=(0.001,) * len(chain), packings=times)
    found = as_profile(chain, "net").model_copy(update={"packings": costs, "times": {"pi": seconds, "box": seconds}})
    fleet = Fleet(
        devices=(Device(name="pi", tier="device"), Device(name="box", tier="cloud")),
        links=(Link(between=("pi", "box"), bandwidth="1 Mbit/s"),),
    )
    split = Constraints.parse("block 0 on pi", f"block {len(chain) - 1} on box", "block 3 on box")
    planner = Planner(found, fleet)
    lossless = planner.best(Objective(), split)[0]
    lossy = planner.best(Objective(), split + Constraints.parse("any accuracy"))[0]
    assert lossless.drop == 0.0
    assert lossy.drop is None
    assert lossy.latency < lossless.latency
    assert set(lossy.packings) <= {"int8+zstd", "avg2-bilinear"}


def test_samples_are_read_from_files_and_checked(chain, tmp_path):
    images = np.random.default_rng(0).random((5, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "all.npy", images)
    np.save(tmp_path / "one.npy", images[0])
    assert np.array_equal(np.concatenate(load_samples(tmp_path / "all.npy", chain)), images)
    assert len(load_samples(tmp_path, chain)) == 6
    np.save(tmp_path / "zero.npy", np.zeros((2, 1, 8, 8), np.float32))
    (tmp_path / "text.npy").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("zero.npy", "the network takes"),
        ("text.npy", "no .npy file"),
        ("empty", "no .npy file there"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_samples(tmp_path / name, chain)
    with pytest.raises(ConfigError, match="a sample is float64"):
        measure_packings(chain, ["int8"], samples=[np.zeros((1, 3, 32, 32))])
    with pytest.raises(ConfigError, match="leave it out"):
        PackingOptions(("identity",)).expanded()
    assert PackingOptions(("default", "int8")).expanded() == list(packings.DEFAULT)


def test_an_interrupted_run_goes_on(chain, tmp_path, monkeypatch):
    partial, honest, ran = tmp_path / "p.partial", packings.measure_packings, []

    def stops(chain, names, **how):
        if names == ["fp16"] and "fp16" not in ran:
            ran.append("fp16")
            raise KeyboardInterrupt
        ran.extend(names)
        return honest(chain, names, **how)

    monkeypatch.setattr(packings, "measure_packings", stops)
    options, steps = PackingOptions(("int8", "fp16"), repeats=1), []
    with pytest.raises(KeyboardInterrupt):
        profile_packings(chain, options, partial=partial)
    costs, _ = profile_packings(chain, options, lambda *step: steps.append(step), partial)
    assert ran == ["int8", "fp16", "fp16"]
    assert list(costs) == ["int8", "fp16"]
    assert steps[-1][:2] == (2, 2)
    partial.write_text("[]")
    with pytest.raises(StoreError, match="damaged"):
        profile_packings(chain, options, partial=partial)


def test_rationed_processor_time_is_charged_as_blocks_are():
    taken = packings.Samples({(0, 0): (0.001, 0.005)}, {(0, 0): (0.001, 0.001)})
    assert packings._charged(taken, 1)[0, 0] == pytest.approx([0.003, 0.003])
    assert packings._charged(taken, 2)[0, 0] == (0.001, 0.005)


def test_the_command_line_profiles_and_plans_with_packings(tmp_path):
    path, fleet = tmp_path / "p.json", tmp_path / "fleet.toml"
    fleet.write_text(
        'name = "f"\n[[device]]\nname = "pi"\ntier = "device"\n[[device]]\nname = "box"\ntier = "cloud"\n'
        '[[link]]\nbetween = ["pi", "box"]\nbandwidth = "1 Mbit/s"\n'
    )
    run = lambda *words: CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)  # noqa: E731
    for device in ("pi", "box"):
        words = ("profile", "cifar-resnet20", "--backend", "torch", "--repeats", 3, "--device", device, "-o", path)
        done = run(*words, "--packing", "int8+zstd", "--packing", "identity+zstd")
        assert done.exit_code == 0, done.output
        assert "int8+zstd" in done.output
    found = load_profile(path)
    assert set(found.times["pi"].packings) == set(found.times["box"].packings) == {"int8+zstd", "identity+zstd"}
    assert list(tmp_path.glob(".*partial")) == []
    words = ("plan", path, fleet, "--constraint", "blocks 0-2 on pi", "--constraint", "block 3 on box", "--json")
    (hop, *_) = json.loads(run(*words, "--constraint", "any accuracy", "--why").output)["plans"][0]["hops"]
    assert (hop["packing"], hop["drop"]) == ("int8+zstd", None)
    (hop, *_) = json.loads(run(*words).output)["plans"][0]["hops"]
    assert hop["packing"] in {"identity", "identity+zstd"}
    shown = run(*words[:-1], "--constraint", "any accuracy", "--why")
    assert shown.exit_code == 0, shown.output
    assert "int8+zstd" in shown.output
