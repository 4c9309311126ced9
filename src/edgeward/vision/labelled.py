"""Labelled pictures, all of one size: what accuracy is measured on and networks are tuned with.

    data = load_labelled(Path("test.npz")).fitted((3, 32, 32))
    for images, labels in data.batches(100):          # float32 [n, 3, 32, 32], int64 [n]
        ...

Four forms are read: a folder with one folder of JPEG or PNG files per class; .npz with `x` (uint8 [n, h, w, c] or float
[n, c, h, w] in 0..1) and `y`; .npz with `blob` (encoded pictures, one after another), `off` (n + 1 offsets) and `y`;
and a pair of IDX files, named by that of its pictures (train-images-idx3-ubyte.gz).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgeward.errors import SourceError
from edgeward.vision.labelledfile import read_folder, read_idx, read_npz

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Labelled", "load_labelled"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Labelled:
    """images: uint8 [n, h, w, c], RGB or grey. labels: int64 [n], numbers of `classes`.

    mean, std: per channel, of pixels in 0..1, that the network was trained with; the usual ones of ImageNet.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] not in (1, 3):
            raise SourceError(f"pictures are {self.images.dtype} {self.images.shape}; give uint8 [n, h, w, 1 or 3]")
        if min(self.images.shape[1:]) < 1:
            raise SourceError(f"pictures are {self.images.shape[1]} x {self.images.shape[2]}; give at least 1 x 1")
        if self.labels.shape != self.images.shape[:1] or not len(self.labels):
            raise SourceError(f"{len(self.images)} pictures have {self.labels.shape} labels; give one for each")
        if not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise SourceError(
                f"labels go from {self.labels.min()} to {self.labels.max()}; {len(self.classes)} classes are known, "
                f"so give 0 to {len(self.classes) - 1}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise SourceError(f"mean {self.mean} and std {self.std}: give three numbers each, std above 0")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64] | slice) -> Labelled:
        """Those pictures only."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def split(self, share: float, seed: int) -> tuple[Labelled, Labelled]:
        """Without a random share of the pictures, and that share (at least one picture each)."""
        order = np.random.default_rng(seed).permutation(len(self))
        count = min(max(round(share * len(self)), 1), len(self) - 1)
        if count < 1:
            raise SourceError("one picture cannot be divided into two parts; give more")
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))

    def fitted(self, shape: tuple[int, ...]) -> Labelled:
        """Resized, and grey made colour or colour grey, for a network that takes [c, h, w]."""
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise SourceError(f"the network takes {shape}; pictures can be made to fit [1 or 3, height, width]")
        images = self.images
        if images.shape[1:3] != shape[1:]:
            images = _resized(images, (shape[1], shape[2]))
        if images.shape[3] == 1 and shape[0] == 3:
            images = np.repeat(images, 3, axis=3)
        elif images.shape[3] == 3 and shape[0] == 1:
            # Luma as BT.601 weighs it.
            images = np.round(images @ np.array([[0.299], [0.587], [0.114]])).astype(np.uint8)
        return replace(self, images=np.ascontiguousarray(images))

    def batches(self, size: int, seed: int | None = None, *, augment: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised float32 [n, c, h, w] and int64 [n], in order, or shuffled by `seed`; the last may be smaller.

        augment: mirror a random half of the pictures.
        """
        random = np.random.default_rng(seed)
        order = np.arange(len(self)) if seed is None else random.permutation(len(self))
        channels = self.images.shape[3]
        mean, std = (
            torch.tensor(values, dtype=torch.float32)[:channels, None, None] for values in (self.mean, self.std)
        )
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            images = torch.from_numpy(self.images[chosen]).permute(0, 3, 1, 2).float()
            if augment:
                mirrored = torch.from_numpy(random.random(len(chosen)) < 0.5)
                images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
            yield ((images / 255 - mean) / std).contiguous(), torch.from_numpy(self.labels[chosen])


def load_labelled(path: Path, size: tuple[int, int] | None = None) -> Labelled:
    """Labelled pictures from a folder or file (see the module's first lines).

    size: height and width that encoded pictures are brought to; needed where they differ. Raises SourceError
    when it is absent, too large, damaged, or its parts do not belong together.
    """
    try:
        if path.is_dir():
            found = read_folder(path, size)
        elif path.suffix == ".npz":
            found = read_npz(path, size)
        elif "images-idx3-ubyte" in path.name:
            found = read_idx(path)
        else:
            reason = "is no folder, .npz file or IDX file of pictures (*-images-idx3-ubyte.gz)"
            raise SourceError(f"{path} {reason if path.exists() else 'does not exist'}; give labelled pictures")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    images, labels, classes = found
    return Labelled(images, labels, classes)


def _resized(images: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    parts = [
        functional.interpolate(
            torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2).float(),
            size=size,
            mode="bilinear",
            antialias=True,
        )
        for start in range(0, len(images), 256)
    ]
    return np.concatenate([part.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy() for part in parts])
