"""Tuning with a transfer layer: better than without, never worse than untuned, and the same after an interruption."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeward.errors import ConfigError, ModelError, StoreError, TraceError
from edgeward.graph.chain import CutOptions, cut
from edgeward.graph.transfer import parse_transfer
from edgeward.split.training import TuneOptions, loss_of
from edgeward.split.tune import best_cut, tune
from edgeward.split.tuned import Base, load_tuned, save_tuned
from edgeward.vision.classification import accuracy
from edgeward.vision.labelled import Labelled

SHAPE = (3, 12, 12)


class Stripes(nn.Module):
    """Tells textures of two pixels apart, which is what pooling destroys."""

    def __init__(self):
        super().__init__()
        self.device = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.edge = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.drop(self.edge(self.device(x)).mean((2, 3))))


def stripes(count, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    rows, columns = np.indices((12, 12))
    shift = random.integers(0, 6, (2, count, 1, 1))
    rows, columns = (rows + shift[0]) // 3 % 2, (columns + shift[1]) // 3 % 2
    patterns = np.choose(labels[:, None, None], [rows, columns, rows ^ columns])
    images = 90 + 60 * patterns[..., None] + random.normal(0, 60, (count, 12, 12, 3))
    return Labelled(images.clip(0, 255).astype(np.uint8), labels, ("rows", "columns", "checks"))


TRAIN, TEST = stripes(240, 1), stripes(200, 2)


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Stripes()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for epoch in range(8):
            for images, labels in TRAIN.batches(40, epoch):
                optimizer.zero_grad()
                functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture
def chain(trained):
    found = cut(trained, torch.zeros(1, *SHAPE))
    assert accuracy(found, TEST) > 0.9
    return found


def weights(module):
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "after", "mode", "optimizer"),
    [
        ("max2-nearest", 1, "whole", "sgd"),
        ("learned4-1x1", 1, "edge", "adam"),
        ("learned4-1x1", 1, "layer", "adam"),
    ],
)
def test_tuning_wins_back_what_the_layer_lost_and_leaves_the_original_alone(chain, name, after, mode, optimizer):
    before = {key: one.detach().clone() for key, one in weights(chain).items()}
    calls = []
    options = TuneOptions(
        epochs=5,
        mode=mode,
        learning_rate=0.02,
        optimizer=optimizer,
        batch=30,
        progress=lambda *one: calls.append(one),
    )
    made = tune(chain, after, parse_transfer(name, 12), TRAIN, TEST, options)
    assert made.accuracy_before > 0.9
    assert made.accuracy_inserted < made.accuracy_before - 0.05
    assert made.accuracy_tuned > made.accuracy_inserted + 0.05
    assert made.accuracy_tuned == accuracy(made.chain, TEST) == pytest.approx(made.accuracy_before - made.drop.share)
    assert made.validation[made.best_epoch] == max(made.validation)
    assert same(weights(chain), before)
    assert all(one.requires_grad for one in made.chain.parameters())
    assert [done for done, _, _ in calls] == list(range(5 * 8))
    assert {total for _, total, _ in calls} == {40}


@pytest.mark.parametrize(
    ("mode", "layer", "after"), [("edge", "avg3-nearest", 0), ("edge", "learned4-1x1", 1), ("layer", "learned4-1x1", 1)]
)
def test_what_is_frozen_stays_bit_for_bit(chain, mode, layer, after):
    options = TuneOptions(epochs=4, mode=mode, learning_rate=0.02, batch=30, optimizer="adam")
    made = tune(chain, after, parse_transfer(layer, 12), TRAIN, TEST, options)
    assert made.best_epoch > 0, "nothing was tuned, so nothing is shown"
    device = [key for key in weights(chain) if int(key.split(".")[1]) <= after]
    assert any("running_mean" in key for key in device)
    assert all(torch.equal(weights(chain)[key], weights(made.chain)[key]) for key in device)
    head = zip(chain.blocks[-1].parameters(), made.chain.blocks[-1].parameters(), strict=True)
    assert all(torch.equal(a, b) == (mode == "layer") for a, b in head)


class Interrupted(Exception):
    pass


def test_an_interrupted_run_ends_as_an_uninterrupted_one(chain, tmp_path):
    def options(checkpoint=None, progress=None, optimizer="adam"):
        return TuneOptions(
            epochs=4, learning_rate=0.01, optimizer=optimizer, batch=40, checkpoint=checkpoint, progress=progress
        )

    for optimizer in ("adam", "sgd"):
        whole = tune(chain, 0, parse_transfer("strided2", 8), TRAIN, TEST, options(optimizer=optimizer))
        path = tmp_path / f"{optimizer}.safetensors"

        def stop(done, total, what):
            if done == 2 * total // 4 + 1:
                raise Interrupted

        with pytest.raises(Interrupted):
            tune(chain, 0, parse_transfer("strided2", 8), TRAIN, TEST, options(path, stop, optimizer))
        calls = []
        note = functools.partial(lambda found, *one: found.append(one), calls)
        resumed = tune(chain, 0, parse_transfer("strided2", 8), TRAIN, TEST, options(path, note, optimizer))
        assert min(calls)[0] == 12  # two epochs of six steps were done
        assert resumed.validation == whole.validation
        assert same(weights(resumed.chain), weights(whole.chain))


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(chain, tmp_path):
    path = tmp_path / "run.safetensors"
    layer = parse_transfer("max2-nearest")
    tune(chain, 0, layer, TRAIN, TEST, TuneOptions(epochs=1, checkpoint=path))
    with pytest.raises(StoreError, match="other data or options"):
        tune(chain, 0, layer, TRAIN, TEST, TuneOptions(epochs=2, checkpoint=path))
    with pytest.raises(StoreError, match="other data or options"):
        tune(chain, 0, layer, TRAIN.take(slice(1, None)), TEST, TuneOptions(epochs=1, checkpoint=path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match="damaged"):
        tune(chain, 0, layer, TRAIN, TEST, TuneOptions(epochs=1, checkpoint=path))


def test_a_run_that_only_harms_returns_the_untuned_state(chain):
    options = TuneOptions(epochs=2, learning_rate=10, distillation=0, batch=20)
    made = tune(chain, 0, parse_transfer("max2-nearest"), TRAIN, TEST, options)
    assert min(made.validation) < made.validation[0] - 0.2, "nothing was harmed, so nothing is shown"
    held = TRAIN.split(options.validation, options.seed)[1]
    assert accuracy(made.chain, held) == max(made.validation) == made.validation[made.best_epoch]
    assert made.best_epoch == 0
    assert torch.equal(made.tuned, made.inserted)


def test_without_a_layer_the_network_itself_is_tuned(chain):
    made = tune(chain, 0, None, TRAIN, TEST, TuneOptions(epochs=1))
    assert len(made.chain) == len(chain)
    assert torch.equal(made.before, made.inserted)


def test_the_loss_is_cross_entropy_and_distillation():
    scores, target, labels = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    hard = loss_of(scores, labels, target, TuneOptions(distillation=0))
    assert hard == pytest.approx(float(functional.cross_entropy(scores, labels)))
    options = TuneOptions(distillation=1, temperature=2)
    p, q = (target / 2).softmax(1), (scores / 2).softmax(1)
    assert float(loss_of(scores, labels, target, options)) == pytest.approx(
        float((p * (p / q).log()).sum() / 5 * 4), rel=1e-5
    )
    assert float(loss_of(target, labels, target, options)) == pytest.approx(0, abs=1e-6)


def test_the_best_cut_is_where_least_is_lost(chain):
    losses = {}
    for place in (0, 1):
        made = tune(chain, place, parse_transfer("max4-nearest"), TRAIN, TEST, TuneOptions(epochs=0))
        losses[place] = made.drop.share
    assert abs(losses[0] - losses[1]) > 0.1, "both cuts lose the same, so nothing is shown"
    assert best_cut(chain, lambda _: parse_transfer("max4-nearest"), TEST) == min(losses, key=losses.get)


def test_a_tuned_network_comes_back_from_its_folder(chain, trained, tmp_path):
    made = tune(chain, 0, parse_transfer("learned4-1x1", 8), TRAIN, TEST, TuneOptions(epochs=1))
    record = save_tuned(made, tmp_path / "t", Base("nets.py:build", SHAPE, CutOptions()))
    assert record.accuracy["tuned"] == made.accuracy_tuned
    chain_again = load_tuned(tmp_path / "t", Stripes())
    assert same(weights(chain_again), weights(made.chain))
    x = torch.rand(5, *SHAPE)
    assert torch.equal(chain_again(x), made.chain(x))
    with pytest.raises(ModelError, match="give that network"):
        load_tuned(tmp_path / "t")
    with pytest.raises(ModelError, match="another network"):
        other = Stripes()
        other.head = nn.Linear(12, 4)
        load_tuned(tmp_path / "t", other)
    stored = tmp_path / "t" / "weights.safetensors"
    good = stored.read_bytes()
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match="not what"):
        load_tuned(tmp_path / "t", Stripes())
    about = json.loads((tmp_path / "t" / "tuned.json").read_text())
    (tmp_path / "t" / "tuned.json").write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(ModelError, match="format"):
        load_tuned(tmp_path / "t", Stripes())
    with pytest.raises(ModelError, match="edgeward split tune"):
        load_tuned(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "all"}, "mode"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"epochs": -1}, "epochs"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"batch": 1}, "batch"),
        ({"validation": 0.9}, "validation"),
    ],
)
def test_options_outside_their_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TuneOptions(**change)


def test_what_does_not_fit_is_refused_before_any_training(chain):
    with pytest.raises(ConfigError, match="choose mode edge or whole"):
        tune(chain, 0, parse_transfer("max2-nearest"), TRAIN, TEST, TuneOptions(mode="layer"))
    with pytest.raises(TraceError, match="choose from 0"):
        tune(chain, 99, parse_transfer("max2-nearest"), TRAIN, TEST)
    more = Labelled(TRAIN.images, TRAIN.labels + 1, ("a", "b", "c", "d"))
    with pytest.raises(ModelError, match="3 classes"):
        tune(chain, 0, parse_transfer("max2-nearest"), more, TEST)


def test_divergence_names_the_learning_rate():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 3))
    chain = cut(plain.eval(), torch.zeros(1, *SHAPE))
    with pytest.raises(ConfigError, match="diverged at learning rate 10"):
        tune(chain, 0, parse_transfer("max2-nearest"), TRAIN, TEST, TuneOptions(learning_rate=10, epochs=20))
