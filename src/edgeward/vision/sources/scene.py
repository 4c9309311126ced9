"""What a synthetic camera shows, read from test://people?seed=1&objects=4.

    scene("people", {"seed": "1", "objects": "4"})   # Scene(seed=1, fps=25.0, ..., objects=4)

A value; `stage` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeward.errors import ConfigError, nearest

__all__ = ["Scene", "scene"]

RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "seed": (int, 0, 2**32 - 1),
    "fps": (float, 0.1, 1000),
    "width": (int, 32, 4096),
    "height": (int, 32, 4096),
    "frames": (int, 1, 100_000_000),
    "objects": (int, 0, 64),
}
"""Parameter -> type, least and greatest value."""


@dataclass(frozen=True)
class Scene:
    """What is shown: `frames` pictures of width x height pixels at `fps`, with `objects` people."""

    seed: int = 0
    fps: float = 25.0
    width: int = 640
    height: int = 480
    frames: int = 500
    objects: int = 4


def scene(name: str, options: Mapping[str, str]) -> Scene:
    """The scene behind test://<name>?<options>. ConfigError for an unknown name, parameter or value."""
    if name != "people":
        raise ConfigError(f"test://{name} is not known; {nearest(name, ['people'])}")
    return Scene(**{key: _number(key, text) for key, text in options.items()})


def _number(key: str, text: str) -> Any:
    if key not in RANGES:
        raise ConfigError(f"test://people has no parameter {key!r}; {nearest(key, RANGES)}")
    kind, least, greatest = RANGES[key]
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value <= greatest:  # also catches nan
        article = "a whole number" if kind is int else "a number"
        raise ConfigError(f"test://people: {key}={text!r} must be {article} from {least:g} to {greatest:g}")
    return value
