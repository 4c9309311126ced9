"""Finding masks and training with them: exact zeros, honest costs, and the same result after an interruption."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from edgeward.errors import PruneError, StoreError
from edgeward.prune.checkpoint import state_of
from edgeward.prune.criteria import parse_criterion
from edgeward.prune.data import Tensors, sample
from edgeward.prune.find import FindOptions, find_mask
from edgeward.prune.imp import ImpOptions, imp, levels
from edgeward.prune.mask import Mask
from edgeward.prune.scope import prunable
from edgeward.prune.training import TrainOptions, accuracy_of, rate_at, train
from edgeward.vision.labelled import load_labelled
from edgeward.zoo.pretrained import load_pretrained
from edgeward.zoo.reference import build

SHORT = TrainOptions(epochs=3, batch=64)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(10, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(32, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )


def examples(count=600, seed=0):
    """Labels from the signs of two hidden directions, in noise."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 10, generator=generator)
    labels = 2 * (inputs[:, 0] + inputs[:, 1] > 0) + (inputs[:, 2] * inputs[:, 3] > 0)
    return Tensors(inputs, labels.long())


class Stopped(Exception):
    pass


def stop_at(count):
    """A progress callback that interrupts."""
    seen = []

    def progress(done, total, text):
        seen.append((done, total, text))
        if len(seen) == count:
            raise Stopped

    return progress


def same(ours, theirs):
    return all(torch.equal(one, theirs[name]) for name, one in ours.items())


def half_mask(model):
    generator = torch.Generator().manual_seed(5)
    ones = Mask.ones(model, prunable(model)).tensors
    return Mask({name: torch.rand(one.shape, generator=generator) < 0.5 for name, one in ones.items()})


@pytest.mark.parametrize("rate", ["cosine", "steps", "constant"])
def test_dead_weights_stay_zero_after_every_step_and_it_learns(rate):
    model, data = network(), examples()
    mask = half_mask(model)
    checked = []

    def loss(output, labels):
        for name, kept in mask.tensors.items():
            dead = dict(model.named_parameters())[name][~kept]
            assert not dead.detach().any()
        checked.append(1)
        return nn.functional.cross_entropy(output, labels)

    history = train(model, data, TrainOptions(epochs=12, batch=64, rate=rate, loss=loss), mask, held=examples(300, 1))
    assert len(checked) == 12 * 10 == history.steps and not model.training
    assert all(not one[~mask.tensors[name]].any() for name, one in state_of(model).items() if name in mask.tensors)
    assert history.accuracies[-1] > 0.6 > 0.4 > accuracy_of(network(), examples(300, 1))
    assert history.losses[-1] < history.losses[0]


def test_rates_are_the_usual_ones():
    steps = [rate_at(step, 8, TrainOptions(rate="steps")) for step in range(8)]
    assert steps == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
    assert rate_at(4, 8, TrainOptions()) == pytest.approx(0.05) and rate_at(0, 8, TrainOptions()) == 0.1


def test_training_resumed_ends_as_if_it_had_never_stopped(tmp_path):
    data, held = examples(), examples(200, 1)
    whole = network()
    history = train(whole, data, SHORT, half_mask(whole), held=held)
    path = tmp_path / "train.safetensors"
    with pytest.raises(Stopped):  # in the middle of the second epoch
        options = dataclasses.replace(SHORT, checkpoint=path, progress=stop_at(15))
        train(network(), data, options, half_mask(whole), held=held)
    resumed = network()
    again = train(resumed, data, dataclasses.replace(SHORT, checkpoint=path), half_mask(whole), held=held)
    assert same(state_of(resumed), state_of(whole))
    assert (again.losses, again.accuracies, again.steps) == (history.losses, history.accuracies, history.steps)


def test_spans_of_a_training_follow_its_schedule():
    """Two spans without momentum are the whole, and a span may begin within an epoch."""
    options = TrainOptions(epochs=2, batch=64, momentum=0.0)
    whole, parts = network(), network()
    for one in (whole, parts):
        one[3].p = 0.0
    train(whole, examples(), options)
    train(parts, examples(), options, span=(0, 13))
    train(parts, examples(), options, span=(13, 20))
    assert same(state_of(whole), state_of(parts))


def test_another_trainings_checkpoint_is_refused(tmp_path):
    options = dataclasses.replace(SHORT, epochs=1, checkpoint=tmp_path / "train.safetensors")
    train(network(), examples(), options)
    for change in (
        lambda: train(network(1), examples(), options),
        lambda: train(network(), examples(seed=2), options),
        lambda: train(network(), examples(), dataclasses.replace(options, learning_rate=0.2)),
        lambda: train(network(), examples(), options, half_mask(network())),
    ):
        with pytest.raises(StoreError, match="of another training"):
            change()
    options.checkpoint.write_bytes(options.checkpoint.read_bytes()[:-10])
    with pytest.raises(StoreError, match="damaged"):
        train(network(), examples(), options)


FIND = FindOptions(keep=0.1, iterations=6, samples=200, warmup=TrainOptions(epochs=1, batch=64, rate="constant"))


def test_find_mask_warms_up_scores_and_counts_the_cost():
    model, data = network(), examples()
    found = find_mask(model, parse_criterion("drive"), data, FIND)
    assert found.mask.kept == round(0.1 * found.mask.total) and found.mask.provenance["criterion"] == "drive:d5"
    assert (found.cost.epochs, found.cost.scored, found.cost.passes) == (1, 6 * 200, 6 * 200)
    assert found.cost.epoch_equivalents(600) == 1 + 6 * 200 / 600
    assert 0 < found.cost.scoring_seconds < found.cost.seconds
    hessian = find_mask(network(), parse_criterion("drive:d3"), data, FIND).cost
    assert hessian.passes == 3 * 6 * 200
    free = find_mask(network(), parse_criterion("synflow"), data, FIND).cost
    assert (free.scored, free.passes) == (0, 0)
    # The model holds the warm weights where they are kept, and what was not pruned as the warm-up left it.
    warm = network()
    train(warm, data, FIND.warmup)
    found.mask.apply_(warm)
    assert same(state_of(model), state_of(warm))


def test_rewinding_to_the_start_keeps_the_mask_of_the_warm_weights():
    warm, start, untouched = network(), network(), network()
    masks = [
        find_mask(one, parse_criterion("snip"), examples(), dataclasses.replace(FIND, rewind=rewind)).mask
        for one, rewind in ((warm, "warm"), (start, "init"))
    ]
    assert masks[0].overlap(masks[1]) == 1
    masks[1].apply_(untouched)
    assert same(state_of(start), state_of(untouched)) and not same(state_of(start), state_of(warm))


def test_iterations_are_nested_and_one_shot_is_one():
    ours = find_mask(network(), parse_criterion("magnitude"), examples(), FIND).mask
    once = find_mask(
        network(), parse_criterion("magnitude"), examples(), dataclasses.replace(FIND, schedule="one-shot")
    )
    # Magnitude does not change as others are removed.
    assert ours.overlap(once.mask) == 1
    cost = find_mask(
        network(), parse_criterion("snip"), examples(), dataclasses.replace(FIND, schedule="one-shot")
    ).cost
    assert cost.scored == 200


@pytest.mark.parametrize("scope", ["layer", "erk"])
def test_scopes_hold_through_the_iterations(scope):
    found = find_mask(network(), parse_criterion("snip"), examples(), dataclasses.replace(FIND, scope=scope)).mask
    first, second = found.densities().values()
    assert found.kept == round(0.1 * found.total)
    assert abs(first - second) < 0.01 if scope == "layer" else first > second + 0.01


@pytest.mark.parametrize("count", [4, 12, 14])
def test_a_search_resumed_ends_as_if_it_had_never_stopped(tmp_path, count):
    """Interrupted in the warm-up (10 steps) and between pruning steps."""
    whole, resumed = network(), network()
    expected = find_mask(whole, parse_criterion("drive"), examples(), FIND)
    options = dataclasses.replace(FIND, checkpoint=tmp_path / "mask.safetensors")
    with pytest.raises(Stopped):
        stopping = dataclasses.replace(options, progress=stop_at(count))
        find_mask(network(), parse_criterion("drive"), examples(), stopping)
    seen = []
    found = find_mask(
        resumed, parse_criterion("drive"), examples(), dataclasses.replace(options, progress=lambda *a: seen.append(a))
    )
    assert found.mask.overlap(expected.mask) == 1 and same(state_of(resumed), state_of(whole))
    assert (found.cost.epochs, found.cost.passes) == (expected.cost.epochs, expected.cost.passes)
    assert len(seen) <= 16 - (count - 2 if count > 10 else 0)
    assert seen[-1][:2] == (15, 16) and "pruning step 6 of 6" in seen[-1][2]
    with pytest.raises(StoreError, match="of another"):
        find_mask(network(), parse_criterion("snip"), examples(), options)
    with pytest.raises(StoreError, match="of another"):
        find_mask(network(), parse_criterion("drive"), examples(), dataclasses.replace(options, keep=0.2))


def test_collapse_is_an_error_unless_there_is_a_floor():
    model = network()
    with torch.no_grad():
        model[4].weight.mul_(1e-6)
    initial = dataclasses.replace(FIND, warmup=TrainOptions(epochs=0), schedule="one-shot")
    with pytest.raises(PruneError, match=r"nothing would be left of 4\.weight"):
        find_mask(model, parse_criterion("magnitude"), examples(), initial)
    mask = find_mask(model, parse_criterion("magnitude"), examples(), dataclasses.replace(initial, floor=3)).mask
    assert int(mask.tensors["4.weight"].sum()) == 3


def test_faults_end_in_one_sentence():
    snip = parse_criterion("snip")
    with pytest.raises(PruneError, match="does not take a batch"):
        find_mask(network(), snip, Tensors(torch.ones(20, 3), torch.zeros(20, dtype=torch.int64)), FIND)
    with pytest.raises(PruneError, match="at least one of each"):
        Tensors(torch.ones(0, 3), torch.zeros(0))
    poisoned = network()
    with torch.no_grad():
        poisoned[4].weight[0, 0] = math.nan
    still = dataclasses.replace(FIND, warmup=TrainOptions(epochs=0))
    with pytest.raises(PruneError, match=r"scores of 0\.weight are not finite"):
        find_mask(poisoned, snip, examples(), still)
    with pytest.raises(PruneError, match="diverged at learning rate 100"):
        train(network(), examples(), TrainOptions(epochs=6, learning_rate=100, momentum=0.99, batch=16))
    for wrong in ({"keep": 0.0}, {"keep": 1.2}, {"iterations": 0}, {"scope": "all"}, {"rewind": "x"}, {"samples": 0}):
        with pytest.raises(PruneError, match="choose"):
            FindOptions(**{"keep": 0.1, **wrong}) if "scope" not in wrong else FindOptions(scope="all")
    for wrong in ({"epochs": -1}, {"learning_rate": 0}, {"momentum": 1}, {"batch": 0}, {"rate": "linear"}):
        with pytest.raises(PruneError, match="choose"):
            TrainOptions(**wrong)
    with pytest.raises(PruneError, match="cannot be augmented"):
        train(network(), examples(), TrainOptions(epochs=1, augment=True))
    with pytest.raises(PruneError, match="not within"):
        train(network(), examples(), SHORT, span=(5, 31))


def test_samples_are_fresh_bounded_and_never_a_single_one():
    data = Tensors(torch.arange(101.0)[:, None], torch.zeros(101))
    parts = sample(data, 65, 32, seed=1)
    assert [len(labels) for _, labels in parts] == [32, 32]
    assert len({float(value) for inputs, _ in parts for value in inputs}) == 64
    assert [len(labels) for _, labels in sample(data, 999, 50, seed=1)] == [50, 50]
    assert not torch.equal(sample(data, 32, 32, seed=2)[0][0], parts[0][0])


IMP = ImpOptions((0.5, 0.2, 0.1), TrainOptions(epochs=2, batch=64), rewind=5)


def test_imp_prunes_the_smallest_of_what_was_trained_and_rewinds():
    model, data = network(), examples()
    found = imp(model, data, IMP, held=examples(200, 1))
    assert [round(level.mask.density, 2) for level in found] == [1.0, 0.5, 0.2, 0.1]
    assert [level.epochs for level in found] == [5 / 10, 5 / 10 + 1.5, 5 / 10 + 3.0, 5 / 10 + 4.5]
    assert same(state_of(model), found[-1].weights) and found[-1].accuracy == accuracy_of(model, examples(200, 1))
    for before, after in itertools.pairwise(found):
        for name, kept in after.mask.tensors.items():
            assert not (kept & ~before.mask.tensors[name]).any() and not after.weights[name][~kept].any()
        kept, dropped = [], []
        for name, one in after.mask.tensors.items():
            kept.append(before.weights[name][one].abs())
            dropped.append(before.weights[name][before.mask.tensors[name] & ~one].abs())
        assert torch.cat(kept).min() >= torch.cat(dropped).max()
    # By hand: the early weights, masked, and the rest of the training.
    rewound = network()
    train(rewound, data, IMP.train, span=(0, 5))
    train(rewound, data, IMP.train, found[1].mask, span=(5, 20))
    assert same(state_of(rewound), found[1].weights)


def test_imp_resumed_ends_as_if_it_had_never_stopped(tmp_path):
    expected = imp(network(), examples(), IMP)
    options = dataclasses.replace(IMP, checkpoint=tmp_path / "imp")
    with pytest.raises(Stopped):
        imp(network(), examples(), dataclasses.replace(options, progress=stop_at(45)))
    seen = []
    again = imp(network(), examples(), dataclasses.replace(options, progress=lambda *a: seen.append(a)))
    assert same(again[-1].weights, expected[-1].weights) and again[-1].epochs == expected[-1].epochs
    assert len(seen) < 30 and seen[-1][:2] == (64, 65)


def test_levels_and_imps_faults():
    assert levels(0.512) == pytest.approx((0.8, 0.64, 0.512)) and levels(0.5)[-1] == 0.5
    assert len(levels(0.018)) == 18 + 1 and len(levels(0.8**18)) == 18
    with pytest.raises(PruneError, match="falling shares"):
        ImpOptions((0.5, 0.5))
    with pytest.raises(PruneError, match="falling shares"):
        ImpOptions(())
    with pytest.raises(PruneError, match="between 0 and 1"):
        ImpOptions((1.0, 0.5))
    with pytest.raises(PruneError, match="rewind is step 99"):
        imp(network(), examples(), dataclasses.replace(IMP, rewind=99))


def test_a_real_network_on_real_pictures(shared_data, tmp_path):
    """The pretrained ResNet-20 on JPEG pictures of CIFAR-10: 60 % pruned, the mask saved, an epoch of sparse training."""
    train_set = load_labelled(shared_data / "cifar10" / "cifar10_jpeg_train5k.npz").take(slice(0, 900))
    held = load_labelled(shared_data / "cifar10" / "cifar10_jpeg_test1k.npz").take(slice(0, 300))
    found = {}
    for name in ("drive", "random"):
        model = build("cifar-resnet20")
        load_pretrained(model, shared_data / "cifar10" / "resnet20-12fca82f.th")
        warmup = TrainOptions(epochs=0)
        options = FindOptions(keep=0.4, iterations=3, samples=128, batch=64, warmup=warmup)
        find_mask(model, parse_criterion(name), train_set, options).mask.save(tmp_path / name)
        mask = Mask.load(tmp_path / name)
        assert mask.kept == round(0.4 * mask.total)
        tuning = TrainOptions(epochs=1, learning_rate=0.02, batch=50, augment=True)
        found[name] = train(model, train_set, tuning, mask, held=held).accuracies[-1]
        assert all(not one[~mask.tensors[key]].any() for key, one in state_of(model).items() if key in mask.tensors)
    print(found)
    assert found["drive"] > 0.6 > found["random"] + 0.1
