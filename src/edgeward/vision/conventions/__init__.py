"""How the outputs of known families of models are read.

family = convention("fastestdet")
[boxes] = family.decode(outputs, [placement], confidence=0.5)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeward.errors import ConfigError, nearest
from edgeward.vision.conventions.base import Convention
from edgeward.vision.conventions.centernet import CenterNet
from edgeward.vision.conventions.fastestdet import FastestDet
from edgeward.vision.conventions.nanodet import NanoDet
from edgeward.vision.conventions.ssd import Ssd
from edgeward.vision.conventions.vectors import EmbeddingVector, Logits
from edgeward.vision.conventions.yolo import YoloV8, YoloX

__all__ = ["CONVENTIONS", "Convention", "convention"]

_FAMILIES = (CenterNet(), EmbeddingVector(), FastestDet(), Logits(), NanoDet(), Ssd(), YoloV8(), YoloX())

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {family.name: family for family in sorted(_FAMILIES, key=lambda family: family.name)}
)
"""Every convention by its name, in order."""


def convention(name: str) -> Convention:
    """The convention of this name. ConfigError names the nearest when there is none."""
    if name not in CONVENTIONS:
        raise ConfigError(f"no convention {name!r}; {nearest(name, CONVENTIONS)}")
    return CONVENTIONS[name]
