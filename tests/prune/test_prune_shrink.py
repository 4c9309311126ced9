"""From a network and a target to a smaller network: channels by importance, goals, tuning, portfolios."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeward.errors import ConfigError, PruneError
from edgeward.graph.onnx import export_module
from edgeward.profile.profile import DeviceTimes
from edgeward.profile.profiler import as_profile
from edgeward.profile.variant import load_portfolio
from edgeward.prune.campaign import CampaignOptions, campaign
from edgeward.prune.channels import Channels
from edgeward.prune.goal import parse_goal
from edgeward.prune.latency import TWIN, Timing
from edgeward.prune.makers import Sets, ShrinkOptions
from edgeward.prune.narrow import ALLOCATIONS, narrow, rank, widths_at
from edgeward.prune.shrink import shrink
from edgeward.prune.sites import Scaled
from edgeward.prune.training import TrainOptions
from edgeward.vision.classification import accuracy
from edgeward.vision.labelled import Labelled
from edgeward.zoo.network import Network, open_network

EXAMPLE = torch.zeros(1, 3, 16, 16)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 4),
    ).eval()  # fmt: skip


def pictures(count, seed=0):
    """Four classes by which quarter is bright."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = random.integers(0, 100, (count, 16, 16, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, label % 3] += 120
    return Labelled(images, labels.astype(np.int64), tuple("abcd"))


def magnitudes(model):
    return {name: one.detach().abs() for name, one in model.named_parameters() if one.dim() > 1}


def test_units_of_least_importance_go_and_consumers_follow():
    model = net()
    with torch.no_grad():
        for index in (3, 7, 11):  # nearly nothing, on both sides
            model[0].weight[index] *= 1e-6
            model[4].weight[:, index] *= 1e-6
    ranking = rank(model, EXAMPLE, Channels.of(model, EXAMPLE), magnitudes(model), relative=True)
    assert set(ranking.importance["0"].argsort()[:3].tolist()) == {3, 7, 11}
    smaller = narrow(model, ranking, {"0": 29, "4": 64})
    assert set(range(32)) - set(smaller.edits.kept["0"]) == {3, 7, 11}
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(smaller.module.eval()(x), model(x), atol=1e-4)


def test_costs_of_all_units_add_up_to_each_layer_read_and_written():
    model = net()
    ranking = rank(model, EXAMPLE, Channels.of(model, EXAMPLE), magnitudes(model))
    weights = {"0": 32 * 27, "4": 64 * 32 * 9, "9": 4 * 64}
    macs = {"0": weights["0"] * 256, "4": weights["4"] * 64, "9": weights["9"]}
    for name, reader in (("0", "4"), ("4", "9")):
        count = (weights[name] + weights[reader]) / sum(weights.values())
        work = (macs[name] + macs[reader]) / sum(macs.values())
        assert float(ranking.parameters[name].sum()) == pytest.approx(count)
        assert float(ranking.macs[name].sum()) == pytest.approx(work)
        assert ranking.intensity(name) == pytest.approx(work / count)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_widths_fall_with_the_share_and_keep_a_floor(allocation):
    model = net()
    ranking = rank(model, EXAMPLE, Channels.of(model, EXAMPLE), magnitudes(model), relative=True)
    before = {"0": 32, "4": 64}
    for share in np.linspace(0, 0.99, 12):
        widths = widths_at(ranking, share, allocation)
        assert all(1 <= widths[name] <= before[name] for name in before)
        assert all(width % 8 == 0 or width < 16 for width in widths.values())
        before = widths
    with pytest.raises(PruneError, match=r"share 1\.0"):
        widths_at(ranking, 1.0)


def test_lean_leaves_less_to_compute_at_as_many_parameters():
    model = net()
    ranking = rank(model, EXAMPLE, Channels.of(model, EXAMPLE), magnitudes(model), relative=True)
    lean, uniform = (widths_at(ranking, 0.5, how, multiple=1) for how in ("lean", "uniform"))
    assert lean["0"] <= uniform["0"] == 16
    assert lean["4"] > uniform["4"] == 32  # its weights are applied least often


def test_scores_that_are_not_finite_are_refused_by_name():
    model, scores = net(), magnitudes(net())
    scores["4.weight"][0] = float("nan")
    with pytest.raises(PruneError, match=r"scores of 4\.weight are not finite"):
        rank(model, EXAMPLE, Channels.of(model, EXAMPLE), scores)


class Clock:
    """A site that times by counting weights."""

    how = "counted"

    def time(self, networks, shape, rounds):
        sizes = {
            name: tuple(len(data) * (1 + 1e-4 * (i % 2)) for i in range(rounds)) for name, data in networks.items()
        }
        return Timing({**sizes, TWIN: sizes[next(iter(sizes))]})


@pytest.mark.parametrize(
    ("method", "structure", "target"),
    [
        ("magnitude", "channels", "params<=0.5x"),
        ("snip", "channels", "macs<=0.4x"),
        ("drive:d1", "channels", "memory<=0.6x"),
        ("synflow", "channels", "latency<=0.5x@slow"),
        ("magnitude", "weights", "params<=0.7x"),
        ("reconvene", "channels", "params<=0.5x"),
    ],
)
def test_every_method_reaches_its_target(method, structure, target):
    model, sets = net(), Sets(pictures(64), pictures(40, 1))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    options = ShrinkOptions(method=method, structure=structure, samples=64, sites={"": Clock(), "slow": Clock()})
    goal = parse_goal(target)
    found = shrink(model, EXAMPLE, [goal], options, sets)
    if goal.metric == "latency":
        old, new, _ = found.latency["slow"]
        assert new.median <= 0.5 * old.median
    else:
        assert found.after[goal.metric] <= goal.limit(found.before[goal.metric])
        assert found.after[goal.metric] >= 0.6 * goal.limit(found.before[goal.metric])  # not much more than asked
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    report = found.report()
    assert report["pruned"]["parameters"] == sum(one.numel() for one in found.module.parameters())
    assert report["accuracy"]["pictures"] == 40


def test_random_channels_depend_on_the_seed():
    kept = []
    for seed in (0, 0, 1):
        options = ShrinkOptions(method="random", seed=seed, sites={"": Clock()})
        kept.append(shrink(net(), EXAMPLE, [parse_goal("params<=0.5x")], options).edits.kept["4"])
    assert kept[0] == kept[1] != kept[2]


def test_tuning_brings_accuracy_back():
    sets = Sets(pictures(256), pictures(100, 1))
    model = net()
    from edgeward.prune.training import train

    train(model, sets.train, TrainOptions(epochs=4, learning_rate=0.05, batch=32))
    assert accuracy(model, sets.test) > 0.9
    options = ShrinkOptions(tuning=TrainOptions(epochs=2, learning_rate=0.02, batch=32), sites={"": Clock()})
    found = shrink(model, EXAMPLE, [parse_goal("params<=0.3x")], options, sets)
    assert found.accuracies[1] > 0.9
    assert found.drop.share == pytest.approx(found.accuracies[0] - found.accuracies[1])


def test_a_profiled_devices_latency_is_scaled_from_this_machines():
    from edgeward.graph.chain import cut
    from edgeward.graph.onnx import export_module

    chain = cut(net(), EXAMPLE)
    times = {"pi": DeviceTimes(seconds=(0.5,) * len(chain), whole=2.0)}
    site = Scaled(as_profile(chain, "net").model_copy(update={"times": times}), "pi")
    timing = site.time({"dense": export_module(net(), EXAMPLE)}, EXAMPLE.shape, 3)
    assert timing.figure("dense").median == pytest.approx(2.0)
    with pytest.raises(PruneError, match=r"no times of 'nano' \(known: pi\)"):
        Scaled(site.profile, "nano")


@pytest.mark.parametrize(
    ("options", "target", "words"),
    [
        ({"method": "magnitud"}, "params<=0.5x", "did you mean 'magnitude'"),
        ({"structure": "rows"}, "params<=0.5x", "choose one of channels, weights"),
        ({"method": "snip"}, "params<=0.5x", "scores pictures"),
        ({}, "latency<=1ms@pi", "nothing is known of 'pi'"),
        ({"tuning": TrainOptions(epochs=2)}, "params<=0.5x", "need pictures"),
        ({"method": "reconvene", "structure": "weights"}, "params<=0.5x", "removes filters"),
        ({"rounds": 1}, "params<=0.5x", "from 3 to 1000"),
    ],
)
def test_mistakes_are_named(options, target, words):
    with pytest.raises((PruneError, ConfigError), match=words):
        shrink(net(), EXAMPLE, [parse_goal(target)], ShrinkOptions(**options))


def test_a_network_with_nothing_to_remove_says_so():
    with pytest.raises(PruneError, match="no weights to prune"):
        shrink(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), EXAMPLE, [parse_goal("params<=0.5x")], ShrinkOptions())


@pytest.mark.parametrize("structure", ["weights", "channels"])
def test_a_campaign_gives_variants_that_reload_and_answer_as_measured(tmp_path, structure):
    sets = Sets(pictures(128), pictures(40, 1))
    network = Network("tiny net", net(), (3, 16, 16))
    options = CampaignOptions(
        (0.5, 0.01),
        structure,
        TrainOptions(epochs=1, learning_rate=0.05, batch=32),
        rounds=3,
        all=True,
        work=tmp_path / "w",
    )
    made = campaign(network, EXAMPLE, sets, options, tmp_path / "out")
    found = load_portfolio(tmp_path / "out")
    assert found == made
    assert [one.name for one in found.variants] == ["tiny-net-1", "tiny-net-0.5", "tiny-net-0.01"]
    from edgeward.zoo.artefact import load_network

    for one in found.variants:
        reloaded = load_network(found.place(one, tmp_path / "out"), net)
        assert accuracy(reloaded.module, sets.test) == pytest.approx(one.accuracy.value)
        assert sum(each.numel() for each in reloaded.module.parameters()) == one.parameters
    assert found.variants[0].parameters > found.variants[2].parameters


class Scaled255(nn.Module):
    """A network with a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.body = net()

    def forward(self, x):
        return self.body(x * self.scale)


def test_buffers_that_are_not_saved_do_no_harm_and_beaten_variants_leave(tmp_path):
    sets, options = Sets(pictures(64), pictures(40, 1)), {"train": TrainOptions(epochs=1, batch=32), "rounds": 3}
    network = Network("tiny", Scaled255(), (3, 16, 16))
    campaign(network, EXAMPLE, sets, CampaignOptions((0.5, 0.1), all=True, **options), tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"portfolio.json", "tiny-1", "tiny-0.5", "tiny-0.1"}
    (tmp_path / "mine.txt").write_text("kept")
    campaign(network, EXAMPLE, sets, CampaignOptions((0.7,), all=True, **options), tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"portfolio.json", "tiny-1", "tiny-0.7", "mine.txt"}


def test_labels_beyond_the_networks_classes_are_named_before_anything_is_done():
    more = Labelled(pictures(8).images, np.arange(8, dtype=np.int64), tuple("abcdefgh"))
    with pytest.raises(PruneError, match="labels up to 7, the network tells 4 classes apart"):
        shrink(net(), EXAMPLE, [parse_goal("params<=0.5x")], ShrinkOptions(), Sets(more, more))


class Slowing(Clock):
    """A machine that is twice as slow after its first timing."""

    def __init__(self):
        self.calls = 0

    def time(self, networks, shape, rounds):
        self.calls += 1
        timing = super().time(networks, shape, rounds)
        factor = 1 if self.calls < 2 else 2
        return Timing({name: tuple(factor * one for one in values) for name, values in timing.seconds.items()})


def test_a_latency_that_is_missed_in_the_end_is_said_to_be():
    clock = Slowing()
    size = Clock().time({"dense": export_module(net(), EXAMPLE)}, (1,), 3).figure("dense").median
    goal = parse_goal(f"latency<={0.7 * size:.0f}s")
    found = shrink(net(), EXAMPLE, [goal], ShrinkOptions(sites={"": clock}))
    _, new, _ = found.latency[""]
    assert new.median <= goal.value or any("is NOT met" in note for note in found.notes)


def test_levels_that_do_not_fall_are_refused():
    with pytest.raises(ConfigError, match="falling shares"):
        CampaignOptions((0.1, 0.5))


def test_a_real_network_on_real_pictures(shared_data):
    from edgeward.vision.labelled import load_labelled
    from edgeward.zoo.pretrained import load_pretrained

    network = open_network("cifar-resnet20")
    load_pretrained(network.module, shared_data / "cifar10" / "resnet20-12fca82f.th")
    test = load_labelled(shared_data / "cifar10" / "cifar10_jpeg_test1k.npz").take(slice(0, 300))
    sets = Sets(load_labelled(shared_data / "cifar10" / "cifar10_jpeg_train5k.npz").take(slice(0, 512)), test)
    options = ShrinkOptions(method="snip", samples=256, sites={"": Clock()})
    found = shrink(network.module, torch.zeros(1, 3, 32, 32), [parse_goal("params<=0.9x")], options, sets)
    assert found.accuracies[0] > 0.7
    assert found.accuracies[1] > 0.5  # a tenth of the parameters, untuned
