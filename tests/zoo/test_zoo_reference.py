"""The reference networks against what is published of them, and what every tool that cuts them relies on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeward.errors import ConfigError
from edgeward.zoo.cifar import cifar_resnet
from edgeward.zoo.convolutions import Separable
from edgeward.zoo.densenet import densenet
from edgeward.zoo.nasnet import Fit
from edgeward.zoo.reference import REFERENCES, STUDY, build
from edgeward.zoo.resnet import resnet
from edgeward.zoo.resnetv2 import resnetv2
from edgeward.zoo.vgg import vgg

SMALL = ("cifar-resnet20", "cifar-vgg16", "densenet121", "inception-v3", "mobilenet-v1", "mobilenet-v2")
SMALL += ("nasnet-mobile", "resnet18", "resnet50", "resnet50v2", "xception")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weightless(name, classes=None):
    """The network without memory for its weights: shapes only."""
    reference = REFERENCES[name]
    with torch.device("meta"):
        return reference.build(classes or reference.classes)


def picture(name, count=2):
    """Noise of the smallest usual size that the network takes."""
    side = 224 if name.startswith("vit") else 32 if name.startswith("cifar") else 80
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def settled(name, classes=5):
    """A network for evaluation whose batch norms have seen some noise."""
    network = build(name, classes, seed=3)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1
    with torch.no_grad():
        network(picture(name, 4))
    return network.eval()


PUBLISHED = {
    # parameters with running statistics in Keras applications (None: not there), and the terms by which a batch-norm
    # channel counts in them: scale, shift, mean, variance; no scale in Inception, a convolution bias more in ResNet V1
    "vgg16": (138_357_544, 4),
    "vgg19": (143_667_240, 4),
    "resnet50": (25_636_712, 5),
    "resnet101": (44_707_176, 5),
    "resnet152": (60_419_944, 5),
    "resnet50v2": (25_613_800, 4),
    "resnet101v2": (44_675_560, 4),
    "resnet152v2": (60_380_648, 4),
    "inception-v3": (23_851_784, 3),
    "inception-resnet-v2": (55_873_736, 3),
    "mobilenet-v1": (4_253_864, 4),
    "mobilenet-v2": (3_538_984, 4),
    "densenet121": (8_062_504, 4),
    "densenet169": (14_307_880, 4),
    "densenet201": (20_242_984, 4),
    "xception": (22_910_480, 4),
    "nasnet-mobile": (5_326_716, 4),
    "nasnet-large": (88_949_818, 4),
}
MULTIPLY_ADDS = {
    # in millions, at the published input: He et al. 2016 table 1; Howard et al. 2017; Sandler et al. 2018;
    # Zoph et al. 2018 table 2 (from inception-v3 on)
    "resnet18": 1800,
    "resnet34": 3600,
    "resnet50": 3800,
    "resnet101": 7600,
    "resnet152": 11300,
    "mobilenet-v1": 569,
    "mobilenet-v2": 300,
    "inception-v3": 5720,
    "xception": 8380,
    "inception-resnet-v2": 13200,
    "nasnet-mobile": 564,
    "nasnet-large": 23800,
}
LAST_MAP = {
    "cifar-resnet20": (64, 8, 8),
    "cifar-resnet56": (64, 8, 8),
    "cifar-vgg16": (512, 1, 1),
    "densenet121": (1024, 7, 7),
    "densenet169": (1664, 7, 7),
    "densenet201": (1920, 7, 7),
    "inception-resnet-v2": (1536, 8, 8),
    "inception-v3": (2048, 8, 8),
    "mobilenet-v1": (1024, 7, 7),
    "nasnet-large": (4032, 11, 11),
    "nasnet-mobile": (1056, 7, 7),
    "resnet18": (512, 7, 7),
    "resnet34": (512, 7, 7),
    "resnet50": (2048, 7, 7),
    "resnet101": (2048, 7, 7),
    "resnet152": (2048, 7, 7),
    "resnet50v2": (2048, 7, 7),
    "resnet101v2": (2048, 7, 7),
    "resnet152v2": (2048, 7, 7),
    "vgg16": (512, 7, 7),
    "vgg19": (512, 7, 7),
    "xception": (2048, 10, 10),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_each_network_is_the_published_one(name):
    reference, network = REFERENCES[name], weightless(name)
    parameters = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    assert parameters == reference.parameters
    assert reference.name == name
    assert reference.source
    if name in PUBLISHED:
        total, terms = PUBLISHED[name]
        channels = sum(norm.num_features for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))
        assert parameters + (terms - 2) * channels == total

    maps = []
    if name in LAST_MAP:
        network.head.register_forward_pre_hook(lambda _, given: maps.append(tuple(given[0].shape[1:])))
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        assert network.eval()(torch.empty(1, *reference.input_shape)).shape == (1, reference.classes)
    if name in MULTIPLY_ADDS:
        assert counter.get_total_flops() / 2e6 == pytest.approx(MULTIPLY_ADDS[name], rel=0.02)
    assert maps == ([LAST_MAP[name]] if name in LAST_MAP else [])


@pytest.mark.parametrize("name", REFERENCES)
def test_each_network_is_one_static_graph_and_uses_every_weight(name):
    network = weightless(name, classes=7)
    traced = torch.fx.symbolic_trace(network)
    logits = traced(picture(name).to("meta"))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert not [key for key, weight in network.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("name", ["cifar-resnet20", "inception-v3", "mobilenet-v2", "nasnet-mobile"])
def test_export_sees_the_same_network(name):
    network, x = weightless(name, classes=7).eval(), picture(name, 1).to("meta")
    program = torch.export.export(network, (x,))
    assert program.module()(x).shape == (1, 7)
    assert set(program.state_dict) == set(network.state_dict())


@pytest.mark.parametrize("name", SMALL)
def test_real_networks_train(name):
    network, x = build(name, 5), picture(name)
    assert network.training
    network(x).square().sum().backward()
    gradients = {key: weight.grad for key, weight in network.named_parameters()}
    assert not [key for key, grad in gradients.items() if not grad.isfinite().all() or not grad.any()]


@pytest.mark.parametrize("name", ["cifar-resnet20", "mobilenet-v2", "nasnet-mobile", "resnet50v2", "xception"])
def test_pictures_of_a_batch_do_not_meet_and_the_trace_agrees(name):
    network, x = settled(name), picture(name)
    with torch.no_grad():
        together = network(x)
        apart = torch.cat([network(x[:1]), network(x[1:])])
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together, torch.fx.symbolic_trace(network)(x))
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = build("mobilenet-v1", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    with torch.device("meta"):
        again = build("mobilenet-v1", seed=5)
    other = build("mobilenet-v1", seed=6)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    assert not torch.equal(first.stem[0].weight, other.stem[0].weight)
    x = picture("mobilenet-v1")
    with torch.no_grad():
        assert torch.equal(first.eval()(x), again.eval()(x))
        assert not torch.allclose(first(x), other.eval()(x))


def test_weights_keep_the_scale_of_the_signal():
    for module in build("cifar-vgg16").modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_in = module.weight[0].numel()
            assert module.weight.var().item() == pytest.approx(2 / fan_in, rel=0.1)


SMALLEST = {"vgg16": 32, "densenet121": 29, "inception-v3": 75, "inception-resnet-v2": 75, "xception": 7}
SMALLEST |= {"cifar-vgg16": 32}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_picture_is_as_documented(name):
    network = weightless(name, 3).eval()
    side = SMALLEST[name]
    assert network(torch.empty(1, 3, side, side + 1, device="meta")).shape == (1, 3)
    with pytest.raises(RuntimeError):
        network(torch.empty(1, 3, side - 1, side + 1, device="meta"))


@pytest.mark.parametrize("side", [4, 5])
def test_halving_in_nasnet_loses_no_pixel(side):
    fit = Fit(2, 4, halve=True)
    x = torch.rand(1, 2, side, side, requires_grad=True)
    mixed = fit.conv(fit.relu(x))
    assert mixed.shape == (1, 4, -(-side // 2), -(-side // 2))
    for channels, offset in ((mixed[:, :2], 0), (mixed[:, 2:], 1)):
        [grad] = torch.autograd.grad(channels.square().sum(), x, retain_graph=True)
        seen = grad.abs().sum(dim=(0, 1)) > 0
        expected = torch.zeros_like(seen)
        expected[offset::2, offset::2] = True
        assert torch.equal(seen, expected)


def test_cifar_shortcuts_copy_and_have_no_weights():
    network = build("cifar-resnet20")
    shortcut = network.stage2[0].shortcut
    assert not [key for key, _ in network.named_parameters() if "shortcut" in key]
    x = torch.rand(2, 16, 8, 8)
    y = shortcut(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])  # half of the new channels on each side, as in option A
    assert y.shape == (2, 32, 4, 4)
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_separable_is_a_convolution_of_low_rank():
    separable = Separable(3, 4, 5).eval()
    x = torch.rand(1, 3, 9, 9)
    kernel = separable.pointwise.weight * separable.depthwise.weight.transpose(0, 1)
    with torch.no_grad():
        whole = separable.norm(torch.nn.functional.conv2d(x, kernel, padding=2))
        torch.testing.assert_close(separable(x), whole)


def test_the_registry_is_complete_and_cannot_be_changed():
    assert len(STUDY) == 18
    assert set(STUDY) == set(PUBLISHED)
    assert tuple(REFERENCES)[:18] == STUDY
    with pytest.raises(TypeError):
        REFERENCES["vgg16"] = REFERENCES["vgg19"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        REFERENCES["vgg16"].classes = 3


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"'resnet5O'; did you mean 'resnet50'"):
        build("resnet5O")
    with pytest.raises(ConfigError, match="0 classes apart; give at least 1"):
        build("resnet18", classes=0)
    for seed in (-1, 2**63):
        with pytest.raises(ConfigError, match=f"seed {seed} is out of range"):
            build("resnet18", seed=seed)
    for family in (vgg, resnet, resnetv2, densenet):
        with pytest.raises(ConfigError, match="of depth 17; choose one of"):
            family(17)
    for depth in (2, 21):
        with pytest.raises(ConfigError, match=f"of depth {depth}; choose 6 k"):
            cifar_resnet(depth)
