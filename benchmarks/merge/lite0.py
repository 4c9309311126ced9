"""Six EfficientNet-Lite0 of 4 M parameters as six cameras: pretrained on ImageNet, each trained further end to end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import shared_data
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from workload import Learning, Search, Workload

from edgeward.merge.task import Samples, Task
from edgeward.merge.train import JointOptions
from edgeward.vision.labelled import load_labelled
from edgeward.zoo.efficientnet import EfficientNetLite0
from edgeward.zoo.network import Network
from edgeward.zoo.packaged import packaged

SIDE = 48
"""Pixels of an input, scaled up from 32; a core trains on 150 to 200 of these a second."""

BATCH = 32
NOTE = "learning rate as in the other workloads, batch as in the training of these models; neither tuned"
LAST = "21."
"""What names of the last layer's parameters begin with."""


@dataclass(frozen=True)
class Camera:
    """answers: to its question by CIFAR-10 class, -1 where the class does not come before it."""

    answers: tuple[int, ...]
    view: Callable[[Tensor], Tensor]


def _cropped(pictures: Tensor) -> Tensor:
    return functional.interpolate(pictures[:, :, 3:29, 3:29], size=32, mode="bilinear", align_corners=False)


CAMERAS = {
    # Airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck; views of pictures [n, 3, 32, 32] in 0..1.
    "five": Camera((0, 1, 4, 2, 3, 2, 4, 3, 0, 1), lambda pictures: pictures),
    "animal": Camera((0, 0, 1, 1, 1, 1, 1, 1, 0, 0), lambda pictures: 0.5 * pictures),
    "place": Camera((0, 1, 0, 2, 2, 2, 3, 2, 3, 1), lambda pictures: pictures.flip(3)),
    "vehicle": Camera((0, 1, -1, -1, -1, -1, -1, -1, 2, 3), lambda pictures: functional.avg_pool2d(pictures, 3, 1, 1)),
    "beast": Camera((-1, -1, 0, 1, 2, 1, 0, 2, -1, -1), _cropped),
    "road": Camera((0, 1, -1, -1, 2, -1, -1, 2, 0, 1), lambda pictures: (1.6 * pictures).clamp(max=1)),
}
"""five: airplane or ship, on wheels, with paws, with hooves, small. place: air, road, land, water. beast: small, with paws, with hooves. road: elsewhere, on it, beside it."""


@dataclass(frozen=True)
class Sizes:
    """Pictures of each part at most, epochs of the unmerged models, seconds of the search."""

    train: int
    judged: int
    held_out: int
    epochs: int
    seconds: float


QUICK, FULL = Sizes(160, 80, 200, 2, 10.0), Sizes(800, 500, 1000, 4, 240.0)
POOLS = {"train": (0, 3600), "validation": (3600, 4300), "test": (4300, 5000)}
"""Which of the 5000 training pictures each part is of, for all cameras alike, so that none learns from another's test."""


def absent() -> str:
    """What is missing to build the workload, in words; nothing if it can be."""
    shared, member = shared_data(), packaged("efficientnet-lite0").member
    if shared is None:
        return "skipped: no CIFAR-10; set EDGEWARD_DATA"
    if member is not None and member.locate() is None:
        return f"skipped: no weights of EfficientNet-Lite0; run: {member.install}"
    return ""


def lite0(full: bool) -> Workload:
    """Every camera's model trained from the same pretrained one, on its own pictures, seeds fixed."""
    sizes = FULL if full else QUICK
    tasks, held_out, builders = [], {}, {}
    moved = []
    for seed, (name, camera) in enumerate(CAMERAS.items()):
        builders[name] = functools.partial(_built, max(camera.answers) + 1)
        parts = [
            _seen(camera, "train5k", bounds, sizes.train if part == "train" else sizes.judged, seed)
            for part, bounds in POOLS.items()
        ]
        module, share = _trained(name, parts[0], sizes.epochs, seed)
        moved.append(share)
        tasks.append(Task(Network(name, module, (3, SIDE, SIDE)), *parts))
        held_out[name] = _seen(camera, "test1k", (0, 1000), sizes.held_out, seed)
    learning = Learning(sizes.epochs, BATCH, _start, _optimizer)
    joint = JointOptions(epochs=4, learning_rate=0.02, batch=32, norm_batches=6)
    about = f"EfficientNet-Lite0 at {SIDE} px on CIFAR-10 (JPEG q75), {min(moved):.4f} or more of the weights of each differ from the pretrained ones"
    return Workload("lite0", builders, tasks, held_out, Search(joint, sizes.seconds, NOTE), learning, about)


def _built(classes: int) -> nn.Module:
    return EfficientNetLite0(classes).eval()


def _start(name: str) -> nn.Module:
    """The pretrained network with a last layer of its own, untrained."""
    module = EfficientNetLite0(max(CAMERAS[name].answers) + 1)
    module.load_state_dict({key: one for key, one in _pretrained().items() if not key.startswith(LAST)}, strict=False)
    return module


@functools.cache
def _pretrained() -> dict[str, Tensor]:
    return packaged("efficientnet-lite0").load().state_dict()


def _optimizer(parameters: list[nn.Parameter], steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = torch.optim.AdamW(parameters, 2e-3, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)


def _trained(name: str, data: Samples, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """From the pretrained weights, all layers; and the share of weights that moved, the new last layer left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _start(name)
        optimizer, rates = _optimizer(list(module.parameters()), epochs * -(-len(data) // BATCH))
        module.train()
        for epoch in range(epochs):
            for inputs, answers in data.batches(BATCH, seed + 101 * epoch):
                optimizer.zero_grad()
                functional.cross_entropy(module(inputs), answers).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                rates.step()
    learnt = [(one.detach(), _pretrained()[key]) for key, one in module.named_parameters() if not key.startswith(LAST)]
    moved = sum(int((new != old).sum()) for new, old in learnt) / sum(old.numel() for _, old in learnt)
    return module.eval(), moved


def _seen(camera: Camera, file: str, bounds: tuple[int, int], most: int, seed: int) -> Samples:
    """Pictures of the camera's classes out of a pool, at most so many, as it sees them."""
    pictures, labels = (one[bounds[0] : bounds[1]] for one in _cifar(file))
    answers = torch.tensor(camera.answers)[labels]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    chosen = order[answers[order] >= 0][:most]
    seen = functional.interpolate(camera.view(pictures[chosen]), size=SIDE, mode="bilinear", align_corners=False)
    # As the pretrained network was fed, (pixel - 127) / 128; the memory format halves the time of a step.
    return Samples(((seen * 255 - 127) / 128).contiguous(memory_format=torch.channels_last), answers[chosen])


@functools.cache
def _cifar(file: str) -> tuple[Tensor, Tensor]:
    """float32 [n, 3, 32, 32] in 0..1, int64 [n]."""
    folder = shared_data() or Path()
    data = load_labelled(folder / "cifar10" / f"cifar10_jpeg_{file}.npz")
    return torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(data.labels)
