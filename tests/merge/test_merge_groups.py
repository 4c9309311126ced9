"""Which layers are interchangeable, and what sharing them could save: the golden figures of the brief."""

from __future__ import annotations

import itertools

import pytest
import torch
from mergenets import CLASSES, DEPTHS, QUESTIONS, net, seeded
from torch import nn

from edgeward.errors import ModelError, PlanError
from edgeward.merge.groups import Group, Instance, groups
from edgeward.merge.potential import potential, power_law
from edgeward.merge.signature import layers
from edgeward.zoo.reference import REFERENCES


@pytest.fixture(scope="module")
def digit_models():
    return {name: net(depth, classes) for name, depth, classes in zip(QUESTIONS, DEPTHS, CLASSES, strict=True)}


@pytest.fixture(scope="module")
def references():
    with torch.device("meta"):
        names = ("resnet18", "resnet50", "resnet101", "resnet152", "vgg16", "mobilenet-v2")
        return {name: _on_meta(name) for name in names}


def _on_meta(name):
    """The brief's figures are those of the later editions, in which a bottleneck halves in its 3x3 convolution."""
    module = REFERENCES[name].build(4)
    for block in module.modules():
        if type(block).__name__ == "Bottleneck":
            first, second = (
                next(one for one in unit.modules() if isinstance(one, nn.Conv2d)) for unit in (block.conv1, block.conv2)
            )
            first.stride, second.stride = second.stride, first.stride
    return module


def test_digits_workload_has_the_golden_sizes(digit_models):
    sizes = [sum(one.numel() for one in module.parameters()) for module in digit_models.values()]
    assert sizes == [647818, 646786, 683971, 683842, 646786, 720898]


def test_digits_workload_has_the_golden_groups(digit_models):
    found = [(group.saving // 4, len(group.instances)) for group in groups(digit_models)]
    assert found == [(2624000, 6), (328320, 6), (184640, 6), (92480, 6), (73856, 3), (1600, 6), (774, 4)]
    assert round(100 * potential(digit_models).share, 2) == 82.02


def test_groups_save_what_the_potential_says(digit_models):
    for count in (2, 3, 6):
        for names in itertools.combinations(QUESTIONS, count):
            chosen = {name: digit_models[name] for name in names}
            assert sum(group.saving for group in groups(chosen)) == potential(chosen).bytes_saved


@pytest.mark.parametrize(
    ("one", "other", "percent"),
    [
        ("resnet101", "resnet152", 42.2),
        ("resnet50", "resnet101", 35.6),
        ("resnet50", "resnet152", 28.8),
        ("resnet18", "resnet50", 20.7),
        ("resnet18", "resnet101", 13.4),
        ("resnet18", "resnet152", 10.4),
        ("resnet18", "mobilenet-v2", 0.0),
        ("resnet152", "mobilenet-v2", 0.0),
    ],
)
def test_pairs_of_reference_networks_have_the_golden_potential(references, one, other, percent):
    models = {one: references[one], other: references[other]}
    share = 100 * _without_heads(models)
    assert round(share, 1) == percent


def _without_heads(models):
    """Of heads of other numbers of classes nothing can be shared; here all have four, so they are left out."""
    heads = [list(layers(module).values())[-1] for module in models.values()]
    shared = min(one.bytes for one in heads) if heads[0] == heads[1] else 0
    found = potential(models)
    return (found.bytes_saved - shared) / found.bytes_layers


def test_same_architecture_shares_half(references):
    assert potential({"a": references["resnet18"], "b": references["resnet18"]}).share_of_layers == 0.5


def test_vgg_pairs_with_resnets_by_weights_alone(references):
    shares = []
    for name in ("resnet18", "resnet50", "resnet101", "resnet152"):
        models = {"vgg16": references["vgg16"], name: references[name]}
        assert _without_heads(models) == 0  # one has biases, the other has none
        shares.append(100 * potential(models, private_bias=True).share_of_layers)
    assert round(max(shares), 1) == 5.8
    assert round(min(shares), 1) == 3.2


@pytest.mark.parametrize(
    ("name", "million", "count", "heaviest", "top", "needed"),
    [
        ("vgg16", 138.36, 16, 0.74, 0.89, (1, 2)),
        ("resnet18", 11.68, 21, 0.20, 0.71, (3, 6)),
        ("resnet50", 25.50, 54, 0.09, 0.60, (9, 17)),
        ("mobilenet-v2", 3.47, 53, 0.37, 0.80, (4, 9)),
    ],
)
def test_power_law_has_the_golden_figures(name, million, count, heaviest, top, needed):
    with torch.device("meta"):
        found = power_law(REFERENCES[name].build(1000))
    assert round(found.bytes / 4e6, 2) == million
    assert found.layers == count
    assert (round(found.heaviest, 2), round(found.top, 2)) == (heaviest, top)
    assert (found.needed60, found.needed80) == needed


def test_form_is_all_of_stride_padding_dilation_groups_bias_and_dtype():
    plain = nn.Conv2d(4, 4, 3)
    others = [
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3).half(),
        nn.Conv2d(4, 4, 5),
        nn.Conv1d(4, 4, 3),
    ]
    for other in others:
        assert groups({"a": nn.Sequential(plain), "b": nn.Sequential(other)}) == ()
    assert len(groups({"a": nn.Sequential(plain), "b": nn.Sequential(nn.Conv2d(4, 4, 3))})) == 1


def test_bytes_are_those_of_the_parameters():
    module = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Linear(5, 7, bias=False), nn.Conv1d(3, 2, 5).double())
    sizes = [sum(one.nbytes for one in layer.parameters()) for layer in module]
    assert [one.bytes for one in layers(module).values()] == sizes


def test_norms_and_weights_used_twice_stay_private():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head, self.norm = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False), nn.BatchNorm1d(4)
            self.head.weight = self.embed.weight

    assert layers(Tied()) == {}


def test_kth_occurrence_pairs_with_kth():
    a, b = seeded(0, 3), seeded(1, 2)
    pairs = [group.instances for group in groups({"a": a, "b": b}) if "64->64" in str(group.signature)]
    assert pairs == [(Instance("a", "6"), Instance("b", "6")), (Instance("a", "9"), Instance("b", "9"))]


def test_a_group_has_one_layer_of_each_model():
    signature = next(iter(layers(nn.Linear(2, 2)).values()))
    with pytest.raises(PlanError, match="twice"):
        Group(signature, (Instance("a", "x"), Instance("a", "y")))


def test_power_law_of_nothing_is_an_error():
    with pytest.raises(ModelError, match="nothing to share"):
        power_law(nn.ReLU())
