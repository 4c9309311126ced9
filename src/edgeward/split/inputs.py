"""Inputs of a network from what a user names: a video, a camera, a folder of images, or an array file.

    for array in open_inputs("street.mp4", (1, 3, 224, 224), "imagenet", limit=100):
        deployment.submit(array)

Pictures are resized and become RGB in 0..1, minus mean and divided by deviation when "imagenet" is asked for.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError, SourceError

__all__ = ["NORMALISATIONS", "open_inputs"]

Array = npt.NDArray[Any]

NORMALISATIONS = {
    "none": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
"""Mean and deviation in pixel values; "imagenet" is what most published image networks were trained with."""


def open_inputs(
    name: str, shape: Sequence[int], normalise: str = "none", limit: int | None = None, dtype: str = "float32"
) -> Iterator[Array]:
    """Arrays of `shape` [1, ...], at most `limit`.

    An .npy file holds one sample of that shape, or many along its first axis. Raises ConfigError when pictures cannot
    be this network's input, SourceError when the source cannot be read or has another shape.
    """
    if normalise not in NORMALISATIONS:
        raise ConfigError(f"normalisation {normalise!r} is unknown; choose one of {', '.join(NORMALISATIONS)}")
    shape = tuple(shape)
    found = _arrays(Path(name), shape, dtype) if name.endswith(".npy") else _pictures(name, shape, normalise)
    return itertools.islice(found, limit)


def _arrays(path: Path, shape: tuple[int, ...], dtype: str) -> Iterator[Array]:
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(
            f"cannot read {path}: {str(error).splitlines()[0]}; give a .npy file of plain numbers"
        ) from error
    if whole.shape == shape[1:]:
        whole = whole[None]
    if whole.shape[1:] != shape[1:] or not len(whole):
        raise SourceError(f"{path} holds {list(whole.shape)}; this network takes [N, {', '.join(map(str, shape[1:]))}]")
    if not np.can_cast(whole.dtype, dtype, "same_kind"):
        raise SourceError(f"{path} holds {whole.dtype}; this network takes {dtype}")
    return (np.array(one[None], dtype) for one in whole)


def _pictures(name: str, shape: tuple[int, ...], normalise: str) -> Iterator[Array]:
    from edgeward.vision.card import Preprocess
    from edgeward.vision.preprocess import prepare
    from edgeward.vision.sources import open_source

    if len(shape) != 4 or shape[1] != 3:
        raise ConfigError(f"this network takes {list(shape)}, not pictures [1, 3, H, W]; give a .npy file")
    mean, deviation = NORMALISATIONS[normalise]
    spec = Preprocess(height=shape[2], width=shape[3], mean=mean, std=deviation)
    source = open_source(name)

    def frames() -> Iterator[Array]:
        with contextlib.closing(source):
            for frame in source:
                batch = np.empty(shape, np.float32)
                prepare(frame.image, spec, batch[0])
                yield batch

    return frames()
