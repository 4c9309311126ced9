"""Reconvene against its arithmetic, and its surgery against the dense network with nothing reading what went."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.criteria import Magnitude, Snip, SynFlow
from edgeward.prune.initialisers import INITIALISERS, initialise_, initialiser_of
from edgeward.prune.mask import Mask
from edgeward.prune.reconvene import ReconveneOptions, decide, for_target, reconvene
from edgeward.prune.rectify import RATIOS, lost, rectified, schedule, worth
from edgeward.prune.sensitivity import Sparsities, convolutions, expected, resilient, sparsities, threshold
from edgeward.zoo.cifar import cifar_resnet
from edgeward.zoo.pruned import edited
from edgeward.zoo.reference import build

PLAN = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG = {
    f"conv{index}": (outputs, inputs, 3, 3)
    for index, (inputs, outputs) in enumerate(zip((3, *PLAN), PLAN, strict=False))
}
EXAMPLE = torch.zeros(1, 3, 8, 8)


def parameters(module):
    return sum(one.numel() for one in module.parameters())


def small(seed=0, initialiser="fan-in", classes=5):
    """Four convolutions, the last ones much larger, then a flattened linear layer, on [n, 3, 8, 8]."""
    layers, inputs = [], 3
    for outputs in (8, 16, 48, 48):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * inputs, classes))
    initialise_(net, initialiser, seed)
    return net.eval()


def golden_widths(reading, ratio):
    found = expected(VGG, 0.1, "fan-in")
    bar = found.average(reading)
    layers = list(VGG)
    readers = dict(zip(layers, [[one] for one in layers[1:]] + [["classifier"]], strict=True))
    removed = {
        name: lost(ratio, found.shares[name], found.of_readers(readers[name]), bar)
        for name in resilient(found, reading)
    }
    return list({**dict(zip(VGG, PLAN, strict=True)), **schedule(dict(zip(VGG, PLAN, strict=True)), removed)}.values())


def test_analytic_sparsities_of_vgg16():
    rows = (
        (0.5, "fan-in", 0.01514, {0: 0.0443, 1: 0.2027, 2: 0.2027, 3: 0.2836, 5: 0.3925, 8: 0.5325, 12: 0.5325}, 0.374),
        (0.1, "fan-in", 0.03814, {0: 0.1115, 1: 0.4826, 4: 0.6400, 7: 0.8045, 8: 0.9329, 12: 0.9329}, 0.726),
        (0.02, "fan-in", 0.05777, {0: 0.1681, 2: 0.6731, 4: 0.8344, 6: 0.9501, 8: 0.9944, 11: 0.9944}, 0.847),
        (0.1, "fan-out", 0.03640, {0: 0.4632, 1: 0.4632, 2: 0.6176, 3: 0.6176, 6: 0.7833, 7: 0.9194}, 0.771),
    )
    for keep, initialiser, limit, shares, mean in rows:
        found = expected(VGG, keep, initialiser)
        assert threshold(VGG, keep, initialiser) == pytest.approx(limit, abs=1e-5)
        assert found.average() == pytest.approx(mean, abs=6e-4)
        assert found.average("weighted") == pytest.approx(1 - keep, abs=1e-9)
        for index, share in shares.items():
            assert found.shares[f"conv{index}"] == pytest.approx(share, abs=6e-5)


def test_resilient_layers_of_vgg16():
    fan_in, fan_out = (expected(VGG, 0.1, one) for one in ("fan-in", "fan-out"))
    assert resilient(fan_in, "weighted") == tuple(f"conv{index}" for index in range(8, 13))
    assert resilient(fan_out, "weighted") == tuple(f"conv{index}" for index in range(7, 13))
    assert resilient(fan_in) == tuple(f"conv{index}" for index in range(5, 13))
    assert resilient(fan_in, margin=0.15) == tuple(f"conv{index}" for index in range(8, 13))


@pytest.mark.parametrize(
    ("reading", "ratio", "widths", "factor"),
    [
        ("weighted", "layer", [256, 256, 256, 512, 35, 35, 35, 35, 35], 4.72),
        ("weighted", "mean", [256, 256, 256, 512, 52, 52, 52, 52, 52], 4.53),
        ("layer-mean", "layer", [256, 51, 51, 101, 35, 35, 35, 35, 35], 17.98),
        ("layer-mean", "mean", [256, 71, 71, 141, 141, 141, 141, 141, 141], 8.41),
        ("layer-mean", "ends", [256, 51, 51, 59, 35, 35, 35, 35, 133], 18.00),
    ],
)
def test_widths_and_parameters_of_vgg16(reading, ratio, widths, factor):
    found = golden_widths(reading, ratio)
    assert found[:4] == list(PLAN[:4])
    assert found[4:] == widths

    def count(plan):  # convolutions and one linear layer for ten classes
        return sum(9 * a * b for a, b in zip((3, *plan), plan, strict=False)) + 10 * plan[-1]

    assert count(PLAN) / count(found) == pytest.approx(factor, abs=0.006)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_drawn_weights_have_the_expected_sparsities(seed):
    model = build("cifar-vgg16", seed=seed)
    names = convolutions(model)
    shapes = {name.removesuffix(".weight"): tuple(model.get_parameter(name).shape) for name in names}
    found, wanted = sparsities(model, 0.1, Magnitude()), expected(shapes, 0.1, "fan-in")
    for name, share in wanted.shares.items():
        # Four standard errors where a layer is so small that they exceed a hundredth: the first has 1,728 weights.
        noise = 4 * math.sqrt(share * (1 - share) / wanted.sizes[name])
        assert found.shares[name] == pytest.approx(share, abs=max(0.01, noise))


def test_uniform_weights_vanish_layer_by_layer():
    assert expected(VGG, 0.068, "default").shares["conv8"] < 1
    assert [expected(VGG, 0.066, "default").shares[f"conv{index}"] for index in range(8, 13)] == [1.0] * 5


@given(
    width=st.integers(1, 600),
    share=st.floats(0, 1),
    floor=st.integers(1, 16),
    multiple=st.sampled_from([1, 4, 8, 16]),
)
@settings(max_examples=200, deadline=None)
def test_schedules_stay_in_bounds(width, share, floor, multiple):
    found = schedule({"a": width}, {"a": share}, floor, multiple)["a"]
    assert min(width, floor) <= found <= width
    assert schedule({"a": width}, {"a": min(1.0, share + 0.1)}, floor, multiple)["a"] <= found
    if multiple == 1 and found > floor:
        assert width * (1 - share) - 1e-6 <= found < width * (1 - share) + 1


SHARE = st.floats(0, 1)


@given(own=SHARE, readers=SHARE, average=SHARE)
@settings(max_examples=200, deadline=None)
def test_a_layer_and_its_readers_have_an_equal_say(own, readers, average):
    ends = lost("ends", own, readers, average)
    assert min(own, readers) - 1e-12 <= ends <= max(own, readers) + 1e-12
    assert ends == pytest.approx(lost("ends", readers, own, average), abs=1e-15)
    assert lost("ends", min(own + 0.1, 1), readers, average) >= ends
    assert lost("layer", own, readers, average) == own and lost("mean", own, readers, average) == average


def test_readers_that_are_not_ranked_keep_all():
    found = Sparsities({"a": 0.5, "b": 0.9}, {"a": 10, "b": 90})
    assert found.of_readers(["b"]) == pytest.approx(0.9)
    assert found.of_readers(["a", "b", "classifier"]) == pytest.approx(1.4 / 3)
    assert found.of_readers(["classifier"]) == found.of_readers([]) == 0


def test_rounding_up_is_guarded_against_floating_point():
    assert schedule({"a": 10}, {"a": 0.7}, 1) == {"a": 3}
    assert schedule({"a": 512}, {"a": 0.9944}) == {"a": 4}
    assert schedule({"a": 512}, {"a": 0.9}, multiple=8) == {"a": 56}  # 52 first


@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_initialisers_are_recognised_and_repeat(initialiser):
    state = torch.get_rng_state()
    one, other = small(3, initialiser), small(3, initialiser)
    torch.set_rng_state(state)
    weights = {name: weight for name, weight in one.named_parameters() if weight.dim() == 4}
    assert initialiser_of(weights) == initialiser
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one[0].weight, small(4, initialiser)[0].weight)
    assert initialiser_of({name: 1.5 * weight for name, weight in weights.items()}) == ""


def test_torch_layers_as_they_come_are_the_default():
    torch.manual_seed(0)
    assert initialiser_of({"a": nn.Conv2d(16, 32, 3).weight, "b": nn.Conv2d(32, 64, 3).weight}) == "default"


def test_only_resilient_layers_lose_filters_and_the_network_learns():
    net = small()
    made = reconvene(net, EXAMPLE, ReconveneOptions(keep=0.1))
    dense = {name.removesuffix(".weight"): len(net.get_parameter(name)) for name in convolutions(net)}
    assert set(made.sensitive) | set(made.resilient) == set(dense)
    assert all(made.widths[name] == dense[name] for name in made.sensitive)
    assert all(made.widths[name] < dense[name] for name in made.resilient)
    assert made.resilient and made.initialiser == "fan-in" and made.seconds > 0
    made.module.train()
    loss = made.module(torch.randn(4, 3, 8, 8)).square().mean()
    loss.backward()
    assert all(bool(torch.isfinite(one.grad).all()) for one in made.module.parameters())


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("keep", [0.3, 0.1, 0.03])
def test_widths_follow_the_shares_of_weights_left(ratio, keep):
    made = reconvene(small(), EXAMPLE, ReconveneOptions(keep=keep, ratio=ratio, floor=1))
    shares = made.decision.sparsities.shares
    layers = list(shares)
    dense = dict(zip(layers, (8, 16, 48, 48), strict=True))
    after = dict(zip(layers, [*layers[1:], "the linear layer"], strict=True))
    for name in made.resilient:
        own, next_one = 1 - shares[name], 1 - shares.get(after[name], 0.0)
        mean = 1 - sum(shares.values()) / len(shares)
        left = dense[name] * {"layer": own, "mean": mean, "ends": math.sqrt(own * next_one)}[ratio]
        assert left - 1e-6 <= made.widths[name] < left + 1
    if ratio == "ends":  # the classifier, which loses nothing, is not starved
        plain = reconvene(small(), EXAMPLE, ReconveneOptions(keep=keep, ratio="layer", floor=1))
        assert made.widths[layers[-1]] > plain.widths[layers[-1]]


@pytest.mark.parametrize("make", [small, lambda: cifar_resnet(8)], ids=["plain", "residual"])
@pytest.mark.parametrize("order", ["l1", "survivors", "random"])
def test_without_new_weights_it_is_the_dense_network_with_removed_channels_unread(make, order):
    net = make().eval()
    example = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    options = ReconveneOptions(keep=0.1, order=order, reinitialise="none", coupled=True)
    made = reconvene(net, example, options)
    assert made.decision.widths
    channels = Channels.of(net, example)
    weights = {name: one.clone() for name, one in net.named_parameters()}
    for name in made.decision.widths:  # by hand, from the groups' slots and the kept outputs
        group = channels.group_of(name)
        for unit in group.units:
            layer, _, index = next(slot for slot in unit if slot[1] == "out")
            if index not in made.edits.kept[layer]:
                for reader, axis, position in unit:
                    if axis == "in":
                        weights[f"{reader}.weight"][:, position] = 0
    with torch.no_grad():
        wanted = functional_call(net, weights, (example,))
        assert torch.allclose(made.module.eval()(example), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
        assert not torch.allclose(net(example), wanted, rtol=1e-2)


def test_filters_with_the_least_masked_magnitude_go():
    net = small()
    mask = Mask.ones(net, ["6.weight"])
    mask.tensors["6.weight"][:, 8:] = False
    values = worth(net, mask)
    norms = net[6].weight.detach().abs()[:, :8].sum((1, 2, 3))
    made = rectified(net, EXAMPLE, Channels.of(net, EXAMPLE), {"6": 11}, values)
    assert made.edits.kept["6"] == tuple(sorted(norms.topk(11).indices.tolist()))
    assert torch.equal(made.module[6].weight, net[6].weight[list(made.edits.kept["6"])])


def test_new_weights_are_where_sizes_changed_and_nowhere_else():
    net = small()
    kept = reconvene(net, EXAMPLE, ReconveneOptions(reinitialise="none"))
    made, again = (reconvene(net, EXAMPLE, ReconveneOptions()) for _ in range(2))
    fresh = reconvene(net, EXAMPLE, ReconveneOptions(reinitialise="all", seed=1))
    layers = [name for name, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for name in layers:
        before, after = kept.module.get_submodule(name).weight, made.module.get_submodule(name).weight
        changed = before.shape != net.get_submodule(name).weight.shape
        assert torch.equal(before, after) is not changed
        assert not torch.equal(before, fresh.module.get_submodule(name).weight)
        assert torch.equal(after, again.module.get_submodule(name).weight)
    drawn = {f"{name}.weight": made.module.get_submodule(name).weight for name in layers}
    assert initialiser_of(drawn) == "fan-in"


def test_the_edits_rebuild_the_network():
    net = small()
    made = reconvene(net, EXAMPLE)
    rebuilt = edited(small(seed=9), made.edits)
    rebuilt.load_state_dict(made.module.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(rebuilt.eval()(x), made.module.eval()(x))


def test_the_model_is_left_alone():
    net = small().train()
    before = copy.deepcopy(net.state_dict())
    reconvene(net, EXAMPLE)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_residual_networks_are_narrowed_inside_blocks_unless_told_otherwise():
    net = build("resnet18", classes=10)
    example = torch.zeros(1, 3, 64, 64)
    inside = reconvene(net, example)
    assert all("conv1" in name for name in inside.decision.widths)
    assert any("stage4.0.conv2 stays 512 wide" in note and "coupled=True" in note for note in inside.notes)
    coupled = reconvene(net, example, ReconveneOptions(coupled=True))
    assert {*inside.decision.widths} < {*coupled.decision.widths}
    assert (
        coupled.widths["stage4.0.conv2"] == coupled.widths["stage4.1.conv2"] == coupled.widths["stage4.0.shortcut.conv"]
    )
    assert parameters(coupled.module) < parameters(inside.module) < parameters(net)


def test_depthwise_channels_are_refused_in_words():
    with pytest.raises(PruneError, match=r"depthwise or grouped convolution .*coupled=True"):
        reconvene(_separable(), EXAMPLE)
    made = reconvene(_separable(), EXAMPLE, ReconveneOptions(keep=0.3, coupled=True))
    assert made.module[1].groups == made.widths["0"]


def _separable():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(), nn.Conv2d(16, 5, 1), nn.Flatten(2)
    )
    initialise_(net, "fan-in", 0)
    return net


def test_torch_default_weights_are_told_and_a_collapse_keeps_the_floor():
    net = small(initialiser="default")
    made = reconvene(net, EXAMPLE, ReconveneOptions(keep=0.01, floor=6))
    assert made.initialiser == "default"
    assert any("torch's uniform weights" in note for note in made.notes)
    assert any("layer collapse" in note for note in made.notes)
    assert min(made.widths.values()) == 6


def test_trained_weights_are_told():
    net = small()
    with torch.no_grad():
        net[6].weight.mul_(3)
    made = reconvene(net, EXAMPLE)
    assert any("not drawn by a known initialiser" in note for note in made.notes) and made.initialiser == "fan-in"


def test_other_criteria_decide_too():
    net = small()
    data = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 5)]
    assert reconvene(net, EXAMPLE, ReconveneOptions(criterion=SynFlow())).decision.widths
    assert reconvene(net, EXAMPLE, ReconveneOptions(criterion=Snip()), data).decision.widths
    with pytest.raises(PruneError, match="give batches"):
        reconvene(net, EXAMPLE, ReconveneOptions(criterion=Snip()))


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_a_target_is_met_by_a_network_hardly_below_it(share):
    net = small()
    limit = int(share * parameters(net))
    made = for_target(net, EXAMPLE, lambda one: parameters(one) <= limit)
    assert 0.8 * limit <= parameters(made.module) <= limit


def test_a_target_that_is_met_already_changes_nothing():
    net = small()
    made = for_target(net, EXAMPLE, lambda one: True)
    assert parameters(made.module) == parameters(net) and "fits as it is" in made.notes[0]
    assert torch.equal(made.module(EXAMPLE), net(EXAMPLE))


def test_a_target_out_of_reach_names_the_bottleneck():
    with pytest.raises(PruneError, match=r"smallest network has \d+ parameters, most of them in .*weight"):
        for_target(small(), EXAMPLE, lambda one: parameters(one) < 10)


def test_a_linear_network_is_narrowed_where_its_weights_are_named():
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 3))
    initialise_(net, "fan-in", 0)
    with pytest.raises(PruneError, match="no convolution"):
        reconvene(net, torch.zeros(1, 8))
    made = reconvene(net, torch.zeros(1, 8), ReconveneOptions(names=("0.weight", "2.weight")))
    assert made.module[2].out_features < 64


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"keep": 0.0}, "between 0 and 1"),
        ({"keep": 1.5}, "between 0 and 1"),
        ({"reading": "median"}, "no reading 'median'"),
        ({"ratio": "all"}, "no ratio 'all'"),
        ({"order": "l2"}, "no order 'l2'"),
        ({"reinitialise": "some"}, "no reinitialise 'some'"),
        ({"initialiser": "xavier"}, "no initialiser 'xavier'"),
        ({"floor": 0}, "floor is 0; choose from 1"),
        ({"margin": float("nan")}, "margin is nan"),
    ],
)
def test_wrong_options(given, told):
    with pytest.raises(PruneError, match=told):
        ReconveneOptions(**given)


def test_wrong_arguments():
    net = small()
    channels, mask = Channels.of(net, EXAMPLE), Mask.ones(net, convolutions(net))
    with pytest.raises(PruneError, match="no group of channels '99'"):
        rectified(net, EXAMPLE, channels, {"99": 3}, {})
    with pytest.raises(PruneError, match="keep 1 or more"):
        rectified(net, EXAMPLE, channels, {"6": 0}, {})
    with pytest.raises(PruneError, match="of another network"):
        worth(cifar_resnet(8), mask)
    with pytest.raises(PruneError, match="the same layers"):
        Sparsities({"a": 0.5}, {"b": 3})
    with pytest.raises(PruneError, match="give 0 to 1"):
        schedule({"a": 8}, {"a": 1.5})
    with pytest.raises(PruneError, match="no ratio 'both'"):
        lost("both", 0.5, 0.5, 0.5)
    with pytest.raises(PruneError, match=r"1\.5 are pruned; give 0 to 1"):
        lost("ends", 0.5, 0.5, 1.5)
    with pytest.raises(PruneError, match="rank weights of convolutions"):
        reconvene(net, EXAMPLE, ReconveneOptions(names=("1.weight",)))
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PruneError, match="not finite"):
        reconvene(net, EXAMPLE)
    assert decide(small(), channels, mask, ReconveneOptions()).widths == {}
