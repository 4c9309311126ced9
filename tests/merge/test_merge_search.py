"""The search on six-question digits: what it ships, whom it judges, how it ends, and that it goes on after a stop."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from functools import partial

import pytest
import torch
from mergenets import DEPTHS, QUESTIONS, seeded, task
from torch import nn

from edgeward.errors import ConfigError, PlanError, StoreError
from edgeward.merge.deltas import deltas
from edgeward.merge.groups import groups
from edgeward.merge.manifest import read_manifest
from edgeward.merge.potential import potential
from edgeward.merge.search import SearchOptions, search
from edgeward.merge.store import load_all
from edgeward.merge.task import Samples, Task, top1
from edgeward.merge.tie import tied, unique_bytes
from edgeward.merge.train import JointOptions, Limits, train
from edgeward.zoo.network import Network

JOINT = JointOptions(epochs=4, learning_rate=0.02, batch=16)
OPTIONS = SearchOptions(target=0.9, joint=JOINT)


def three():
    return [task("parity"), task("ge5"), task("loop")]


def models(tasks):
    return {one.name: one.module for one in tasks}


def bits(tasks):
    return {(one.name, path): value.clone() for one in tasks for path, value in one.module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def opened(folder, tasks):
    return load_all(folder, {one.name: partial(copy.deepcopy, one.module) for one in tasks})


def without_time(step):
    return dataclasses.replace(step, seconds=0.0)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole search: tasks, their unmerged models, the steps, the folder."""
    tasks, folder = [task(name) for name in ("ten", "parity", "ge5")], tmp_path_factory.mktemp("search") / "merged"
    before = copy.deepcopy(models(tasks))
    return tasks, before, list(search(tasks, folder, OPTIONS)), folder


def test_it_saves_most_of_the_potential_and_every_model_keeps_its_target_from_the_files(done):
    tasks, before, steps, folder = done
    could = potential(before)
    assert steps[-1].saved_bytes > 0.5 * could.bytes_saved
    loaded = opened(folder, tasks)
    for one in tasks:
        unmerged = top1(before[one.name], one.test)
        assert unmerged > 0.8
        reached = top1(loaded[one.name], one.test)
        assert reached >= OPTIONS.target * unmerged
        manifest = read_manifest(folder, one.name)
        assert (manifest.accuracy, manifest.unmerged, manifest.target) == (reached, unmerged, OPTIONS.target)


def test_savings_never_fall_and_are_real(done):
    tasks, before, steps, folder = done
    saved = [step.saved_bytes for step in steps]
    assert saved == sorted(saved)
    assert all(
        step.outcome == "confirmed"
        for step, last in zip(steps[1:], steps, strict=False)
        if step.saved_bytes > last.saved_bytes
    )
    apart = unique_bytes(before.values())
    assert apart - unique_bytes(models(tasks).values()) == saved[-1]
    # On loading, what is equal by chance is one as well.
    assert unique_bytes(opened(folder, tasks).values()) <= apart - saved[-1]


def test_the_models_in_memory_are_those_in_the_files(done):
    tasks, _, _, folder = done
    loaded = opened(folder, tasks)
    for one in tasks:
        stored = loaded[one.name].state_dict()
        assert all(torch.equal(value, stored[path]) for path, value in one.module.state_dict().items())


def test_shared_layers_are_one_memory_after_every_step_and_norms_never(tmp_path):
    # Traps 2 and 6.
    tasks = three()
    for _, step in zip(range(3), search(tasks, tmp_path / "m", OPTIONS), strict=False):
        if step.outcome == "confirmed":
            assert all(tied(models(tasks), group) for group in step.groups)
        norms = [one for item in tasks for one in item.module.modules() if isinstance(one, nn.BatchNorm2d)]
        places = [one.data_ptr() for norm in norms for one in (norm.weight, norm.running_mean, norm.running_var)]
        assert len(set(places)) == len(places)


def test_stopped_and_resumed_is_as_never_stopped(tmp_path):
    whole, parts = three(), three()
    short = dataclasses.replace(OPTIONS, joint=dataclasses.replace(JOINT, epochs=2))
    expected = list(search(whole, tmp_path / "whole", short))
    found = list(itertools.islice(search(parts, tmp_path / "parts", short), 2))
    fresh = three()
    rest = list(search(fresh, tmp_path / "parts", short))
    assert [without_time(one) for one in found + rest] == [without_time(one) for one in expected]
    assert same(bits(fresh), bits(whole))
    assert rest[0].seconds > found[-1].seconds
    assert list(search(three(), tmp_path / "parts", short)) == []


def test_a_search_that_breaks_off_in_the_middle_leaves_the_last_good_state(tmp_path):
    tasks = three()
    next(search(tasks, tmp_path / "m", OPTIONS))
    calls = []

    def broken(output, labels):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("the camera is gone")
        return nn.functional.cross_entropy(output, labels)

    fresh = [dataclasses.replace(one, loss=broken, metric=lambda model, data: 0.1) for one in three()]
    with pytest.raises(RuntimeError, match="camera"):
        list(search(fresh, tmp_path / "m", OPTIONS))
    assert len(calls) == 4
    assert same(bits(fresh), bits(tasks))


class Sinking:
    """A metric that is high for the first looks and then lower: a model that every trial ruins."""

    def __init__(self, good_looks, after=0.1):
        self.looks, self.good_looks, self.after = 0, good_looks, after

    def __call__(self, model, data):
        self.looks += 1
        return 0.9 if self.looks <= self.good_looks else self.after


def chain_of_three(metrics):
    """a and b have the heavy layer in common, b and c a light one, a and c nothing."""

    def module(seed, *sizes):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Flatten(), *(nn.Linear(*pair) for pair in itertools.pairwise((64, *sizes)))).eval()

    modules = {"a": module(0, 32, 7), "b": module(1, 32, 5, 3), "c": module(2, 24, 5, 3)}
    data = Samples(torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)
    parts = {name: Samples(data.inputs[:count], data.targets[:count]) for name, count in PARTS.items()}
    return [Task(Network(name, one, (1, 8, 8)), **parts, metric=metrics[name]) for name, one in modules.items()]


PARTS = {"train": 40, "validation": 20, "test": 10}


def test_a_model_that_shares_with_the_trial_is_judged_with_it(tmp_path):
    # Trap 1: A and B share; a trial on B and C must have A in the gate.
    looks = []

    def looked(model, data):
        looks.append(len(data))
        return 0.9

    metrics = {"a": looked, "b": lambda model, data: 0.9, "c": lambda model, data: 0.9}
    steps = search(chain_of_three(metrics), tmp_path / "m", OPTIONS)
    assert looks == [PARTS["validation"], PARTS["test"]]
    first, second = next(steps), next(steps)
    assert (sorted(first.group.models), first.outcome) == (["a", "b"], "confirmed")
    assert (sorted(second.group.models), second.outcome) == (["b", "c"], "confirmed")
    assert looks[2:] == [PARTS["validation"], PARTS["test"]] * 2
    assert set(second.accuracies) == {"a", "b", "c"}


def test_a_trial_that_ruins_a_model_outside_it_does_not_count(tmp_path):
    # a is fine unmerged (two looks) and after the first trial (two more), and then no longer.
    metrics = {"a": Sinking(4), "b": lambda model, data: 0.9, "c": lambda model, data: 0.9}
    tasks = chain_of_three(metrics)
    before = bits(tasks)
    found = list(search(tasks, tmp_path / "m", OPTIONS))
    outcomes = [("".join(sorted(one.group.models)), one.outcome) for one in found]
    assert outcomes == [("ab", "confirmed"), ("bc", "failed")]
    assert found[1].saved_bytes == found[0].saved_bytes
    stored = opened(tmp_path / "m", tasks)["c"].state_dict()
    assert all(torch.equal(stored[path], value) for (name, path), value in before.items() if name == "c")


@pytest.mark.parametrize("count", [1, 7])
def test_all_groups_fail_and_nothing_has_changed(tmp_path, count):
    # Trap 3.
    tasks = [dataclasses.replace(one, metric=Sinking(2)) for one in (task("parity"), task("ge5"))]
    if count == 1:
        tasks[1] = dataclasses.replace(tasks[1], network=Network("ge5", seeded(0, 2, 5, (80, 40), (8, 24)), (1, 8, 8)))
    assert (len(groups(models(tasks))) == 1) == (count == 1)
    before = bits(tasks)
    steps = list(
        search(tasks, tmp_path / "m", dataclasses.replace(OPTIONS, joint=dataclasses.replace(JOINT, epochs=1)))
    )
    assert {step.outcome for step in steps} == {"failed"}
    assert len(steps) >= len(groups(models(tasks)))
    assert same(bits(tasks), before)
    assert not any(tied(models(tasks), group) for group in groups(models(tasks)))
    loaded = opened(tmp_path / "m", tasks)
    assert all(torch.equal(loaded[name].state_dict()[path], value) for (name, path), value in before.items())


def test_the_last_gate_looks_at_other_data_and_refuses(tmp_path):
    # Trap 11: validation is met, test data says no.
    def fooled(model, data):
        return 0.9 if len(data) != 150 or same_as_before(model) else 0.1

    tasks = [task("parity"), task("ge5")]
    short = [
        dataclasses.replace(one, validation=Samples(one.validation.inputs[:100], one.validation.targets[:100]))
        for one in tasks
    ]
    known = {one.name: {path: value.clone() for path, value in one.module.state_dict().items()} for one in short}

    def same_as_before(model):
        state = model.state_dict()
        return any(
            all(torch.equal(state[path], value) for path, value in one.items())
            for one in known.values()
            if one.keys() == state.keys() and all(state[p].shape == v.shape for p, v in one.items())
        )

    steps = list(search([dataclasses.replace(one, metric=fooled) for one in short], tmp_path / "m", OPTIONS))
    assert {step.outcome for step in steps} == {"refused"}
    assert steps[-1].saved_bytes == 0
    assert all(same_as_before(one.module) for one in short)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_time_that_runs_out_is_kept_to_and_more_time_goes_on(tmp_path):
    ticks = itertools.count()
    tasks = [dataclasses.replace(one, metric=Sinking(2)) for one in (task("parity"), task("ge5"))]
    before = bits(tasks)
    limited = dataclasses.replace(OPTIONS, seconds=20)
    steps = list(search(tasks, tmp_path / "m", limited, clock=lambda: float(next(ticks))))
    assert [step.outcome for step in steps] == ["time"]
    assert same(bits(tasks), before)
    assert list(search(three()[:2], tmp_path / "m", limited, clock=lambda: 0.0)) == []
    assert next(search(three()[:2], tmp_path / "m", OPTIONS)).outcome in ("confirmed", "failed")


def test_corrections_are_counted_and_come_back(tmp_path):
    tasks = [task("parity"), task("prime")]
    before = unique_bytes(models(tasks).values())
    steps = list(itertools.islice(search(tasks, tmp_path / "m", dataclasses.replace(OPTIONS, rank=2)), 2))
    confirmed = [step for step in steps if step.outcome == "confirmed"]
    assert confirmed
    assert any(deltas(one.module) for one in tasks)
    assert (
        before - unique_bytes(models(tasks).values())
        == steps[-1].saved_bytes
        < sum(group.saving for one in confirmed for group in one.groups)
    )
    fresh = [task("parity"), task("prime")]
    search(fresh, tmp_path / "m", dataclasses.replace(OPTIONS, rank=2))
    assert [deltas(one.module) for one in fresh] == [deltas(one.module) for one in tasks]
    assert same(bits(fresh), bits(tasks))
    loaded = load_all(
        tmp_path / "m",
        {one.name: partial(seeded, 0, DEPTHS[QUESTIONS.index(one.name)], 2, (64, 32), (8, 16)) for one in tasks},
    )
    assert any(deltas(one) for one in loaded.values())


@pytest.mark.parametrize("change", [{"aligned": True}, {"private_bias": True}])
def test_options_come_to_a_result_too(tmp_path, change):
    tasks = [task("parity"), task("prime")]
    unmerged = {one.name: top1(one.module, one.test) for one in tasks}
    step = next(search(tasks, tmp_path / "m", dataclasses.replace(OPTIONS, **change)))
    assert step.outcome == "confirmed"
    assert all(step.accuracies[name] >= OPTIONS.target * one for name, one in unmerged.items())


def test_a_learning_rate_that_is_too_high_fails_and_harms_nothing(tmp_path):
    tasks = [task("parity"), task("ge5")]
    before = bits(tasks)
    wild = dataclasses.replace(OPTIONS, target=1.0, joint=dataclasses.replace(JOINT, learning_rate=100.0, epochs=1))
    step = next(search(tasks, tmp_path / "m", wild))
    assert step.outcome in ("diverged", "failed")
    assert same(bits(tasks), before)


def test_training_counts_hopeless_models_and_stops_when_told():
    tasks = [dataclasses.replace(task("parity"), metric=Sinking(0)), task("ge5")]
    targets = {"parity": 0.9, "ge5": 0.0001}
    outcome = train(tasks, targets, JointOptions(epochs=8, batch=32), Limits(lambda failed: "parity" in failed))
    assert outcome.met == {"ge5"}
    assert 2 <= outcome.epochs < 8
    assert not tasks[0].module.training
    early = train([task("ge5")], {"ge5": 0.1}, JOINT)
    assert (early.epochs, early.met) == (0, {"ge5"})  # validated before any training


def test_a_step_is_no_longer_than_its_limit():
    moved = {}
    for clip in (1e-6, 1.0):
        one = dataclasses.replace(task("parity"), metric=lambda model, data: 0.1)
        before = {path: value.detach().clone() for path, value in one.module.named_parameters()}
        options = dataclasses.replace(JOINT, epochs=1, momentum=0.0, weight_decay=0.0, clip=clip)
        train([one], {"parity": 0.9}, options)
        changes = [(value.detach() - before[path]).square().sum() for path, value in one.module.named_parameters()]
        moved[clip] = float(torch.stack(changes).sum().sqrt())
    assert moved[1e-6] <= 1.01e-6 * JOINT.learning_rate * -(-300 // JOINT.batch)
    assert moved[1.0] > 1e-3


def test_models_with_nothing_in_common_are_told_so_at_once(tmp_path):
    other = Network("other", nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8))
    with pytest.raises(PlanError, match=r"parity, other have no layer in common: sharing could save 0 of"):
        search([task("parity"), dataclasses.replace(task("ge5"), network=other)], tmp_path / "m", OPTIONS)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("target", [0.0, -1.0, 1.01, float("nan")])
def test_targets_out_of_range(target):
    with pytest.raises(ConfigError, match=r"above 0 and at most 1"):
        SearchOptions(target=target)


@pytest.mark.parametrize("change", [{"seconds": 0}, {"rank": -1}])
def test_other_options_out_of_range(change):
    with pytest.raises(ConfigError, match="give"):
        SearchOptions(**change)
    with pytest.raises(ConfigError, match="batch is 1"):
        JointOptions(batch=1)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_data_that_is_missing_for_one_model_is_named(tmp_path, part):
    for nothing in (None, Samples(torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.long))):
        with pytest.raises(PlanError, match=f"ge5 has no {part} data"):
            search([task("parity"), task("ge5", **{part: nothing})], tmp_path / "m", OPTIONS)


def test_names_and_numbers_of_models(tmp_path):
    with pytest.raises(PlanError, match="two models are called 'ge5'"):
        search([task("ge5"), task("ge5")], tmp_path / "m", OPTIONS)
    with pytest.raises(PlanError, match="at least two"):
        search([task("ge5")], tmp_path / "m", OPTIONS)


def test_a_model_that_is_never_right_has_no_share_to_keep(tmp_path):
    with pytest.raises(PlanError, match="ge5 reaches 0"):
        search([task("parity"), dataclasses.replace(task("ge5"), metric=lambda m, d: 0.0)], tmp_path / "m", OPTIONS)


def test_a_folder_of_another_search_or_a_damaged_one(done, tmp_path):
    _, _, _, folder = done
    with pytest.raises(StoreError, match="other models, data or options"):
        search(three(), folder, OPTIONS)
    tasks = three()[:2]
    next(search(tasks, tmp_path / "m", OPTIONS))
    path = tmp_path / "m" / "search.json"
    record = json.loads(path.read_text())
    for text in ("{", "[]", json.dumps({**record, "trial": {"group": 99, "trying": [], "copy": [], "left": []}})):
        path.write_text(text)
        with pytest.raises(StoreError, match="is damaged"):
            search(three()[:2], tmp_path / "m", OPTIONS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(StoreError, match="holds no merged models"):
        search(three()[:2], tmp_path / "other", OPTIONS)
    path.unlink()
    with pytest.raises(StoreError, match="no search to go on with"):
        search(three()[:2], tmp_path / "m", OPTIONS)
