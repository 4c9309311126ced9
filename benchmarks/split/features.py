"""A real activation: what VGG-16 shapes of a natural picture after a ReLU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch


def sparse_map(data: Path | None) -> tuple[np.ndarray[Any, np.dtype[np.float32]], str]:
    """float32 [1, C, H, W] after a ReLU in the trained network and on the picture that are at hand, and what it is."""
    from edgeward.graph.chain import cut

    network, picture, what = trained(data)
    chain = cut(network.eval(), picture)
    maps = [values[0] for values in chain.activations(picture) if values[0].dim() == 4 and bool((values[0] >= 0).all())]
    chosen = max((one for one in maps[1:] if float((one == 0).float().mean()) > 0.3), key=lambda one: one.numel())
    return np.ascontiguousarray(chosen.numpy()), what


def trained(data: Path | None) -> tuple[torch.nn.Module, torch.Tensor, str]:
    import cv2

    from edgeward.zoo.pretrained import load_pretrained
    from edgeward.zoo.reference import build

    if data is None:
        generator = torch.Generator().manual_seed(0)
        return build("vgg16"), torch.rand(1, 3, 224, 224, generator=generator), "VGG-16 (random weights) on noise"
    network = build("cifar-resnet56")
    load_pretrained(network, data / "cifar10" / "resnet56-4bfd9763.th")
    read = cv2.VideoCapture(str(data / "video" / "vtest.avi")).read()[1]
    crop = cv2.resize(read, (512, 384), interpolation=cv2.INTER_AREA)[..., ::-1] / 255.0
    normal = (crop - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    picture = torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32))
    return network, picture, "a map after a ReLU of the trained ResNet-56 on a street picture of 512 x 384"
