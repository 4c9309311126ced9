"""The reference networks by name, each with its input and its published number of parameters.

    network = build("resnet50", classes=10, seed=1)
    REFERENCES["resnet50"].input_shape     # (3, 224, 224)

`STUDY` are the eighteen networks that Lockhart et al. split in "Scission: Performance-driven and Context-aware
Cloud-Edge Distribution of Deep Neural Networks", UCC 2020; the others are the usual ones of the literature on
pruning and federated learning. Weights are random: these are architectures, not trained models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from edgeward.errors import ConfigError, nearest
from edgeward.zoo.cifar import cifar_resnet, cifar_vgg16
from edgeward.zoo.densenet import densenet
from edgeward.zoo.inception import inception_v3
from edgeward.zoo.inceptionresnet import inception_resnet_v2
from edgeward.zoo.mobilenets import mobilenet_v1, mobilenet_v2
from edgeward.zoo.nasnet import nasnet_large, nasnet_mobile
from edgeward.zoo.resnet import resnet
from edgeward.zoo.resnetv2 import resnetv2
from edgeward.zoo.vgg import vgg
from edgeward.zoo.vit import vit
from edgeward.zoo.xception import xception

__all__ = ["REFERENCES", "STUDY", "Reference", "build"]

_KERAS = "trainable as in Keras applications"
_PLAIN = "as published for PyTorch: no biases in convolutions, which Keras has"
_SCALED = "Keras applications' trainable {} and one batch-norm scale for each of {} channels, which Keras leaves out"


@dataclass(frozen=True)
class Reference:
    """One architecture: how to build it for so many classes, and what is known of it.

    `input_shape` is [c, h, w] of the published training; `parameters` counts what is trainable with `classes`
    classes (batch-norm scales and shifts yes, running statistics no); `source` says where that number is from.
    """

    name: str
    build: Callable[[int], nn.Module]
    input_shape: tuple[int, int, int]
    parameters: int
    classes: int
    source: str


def _imagenet(
    name: str, make: Callable[[int], nn.Module], parameters: int, source: str = _KERAS, *, side: int = 224
) -> Reference:
    return Reference(name, make, (3, side, side), parameters, 1000, source)


def _cifar(name: str, make: Callable[[int], nn.Module], parameters: int, source: str) -> Reference:
    return Reference(name, make, (3, 32, 32), parameters, 10, source)


_STUDY = (
    _imagenet("vgg16", partial(vgg, 16), 138_357_544),
    _imagenet("vgg19", partial(vgg, 19), 143_667_240),
    _imagenet("resnet50", partial(resnet, 50), 25_557_032, _PLAIN),
    _imagenet("resnet101", partial(resnet, 101), 44_549_160, _PLAIN),
    _imagenet("resnet152", partial(resnet, 152), 60_192_808, _PLAIN),
    _imagenet("resnet50v2", partial(resnetv2, 50), 25_568_360),
    _imagenet("resnet101v2", partial(resnetv2, 101), 44_577_896),
    _imagenet("resnet152v2", partial(resnetv2, 152), 60_236_904),
    _imagenet("inception-v3", inception_v3, 23_834_568, _SCALED.format("23,817,352", "17,216"), side=299),
    _imagenet("inception-resnet-v2", inception_resnet_v2, 55_843_464, _SCALED.format("55,813,192", "30,272"), side=299),
    _imagenet("mobilenet-v1", mobilenet_v1, 4_231_976),
    _imagenet("mobilenet-v2", mobilenet_v2, 3_504_872),
    _imagenet("densenet121", partial(densenet, 121), 7_978_856),
    _imagenet("densenet169", partial(densenet, 169), 14_149_480),
    _imagenet("densenet201", partial(densenet, 201), 20_013_928),
    _imagenet("xception", xception, 22_855_952, side=299),
    _imagenet("nasnet-mobile", nasnet_mobile, 5_289_978),
    _imagenet("nasnet-large", nasnet_large, 88_753_150, side=331),
)
_OTHERS = (
    _imagenet("resnet18", partial(resnet, 18), 11_689_512, "as published for PyTorch; not in Keras applications"),
    _imagenet("resnet34", partial(resnet, 34), 21_797_672, "as published for PyTorch; not in Keras applications"),
    _cifar("cifar-resnet20", partial(cifar_resnet, 20), 269_722, "He et al., CVPR 2016, table 6: 0.27M"),
    _cifar("cifar-resnet56", partial(cifar_resnet, 56), 853_018, "He et al., CVPR 2016, table 6: 0.85M"),
    _cifar("cifar-vgg16", cifar_vgg16, 14_724_042, "Simonyan and Zisserman's 13 convolutions, batch norm for bias"),
    _imagenet("vit-tiny", partial(vit, 192, 3), 5_717_416, "DeiT-Ti of Touvron et al., ICML 2021, table 1: 5M"),
)

STUDY: tuple[str, ...] = tuple(reference.name for reference in _STUDY)
"""The eighteen networks of the Scission study."""

REFERENCES: Mapping[str, Reference] = MappingProxyType({one.name: one for one in _STUDY + _OTHERS})
"""Every reference network by its name, the study's first."""


def build(name: str, classes: int | None = None, seed: int = 0) -> nn.Module:
    """A reference network on the CPU, in training mode, with the weights that `seed` draws.

    Weights are normal with variance 2 / fan-in (He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2),
    biases 0. The same seed gives the same weights; torch's own random state stays as it was. `classes` defaults to
    those of the published network.

    Fresh batch norms have seen nothing, so in evaluation mode deep residual networks multiply their signal (to 1e9
    in resnet152). One batch in training mode, even of noise, mends that where their `momentum` is 1 meanwhile.

    Raises ConfigError for an unknown name, fewer than one class, or a seed outside 0 to 2**63 - 1.
    """
    if name not in REFERENCES:
        raise ConfigError(f"no reference network is called {name!r}; {nearest(name, REFERENCES)}")
    reference = REFERENCES[name]
    wanted = reference.classes if classes is None else classes
    if wanted < 1:
        raise ConfigError(f"{name} cannot tell {wanted} classes apart; give at least 1")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed {seed} is out of range; give a whole number from 0 to 2**63 - 1")
    # Only the CPU's generator is touched: torch.manual_seed would also reseed every GPU.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = reference.build(wanted)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network
