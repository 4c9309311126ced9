"""Six cameras over Fashion-MNIST: each with a question, a view, pictures and a network of its own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from harness import FASHION
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from edgeward.merge.task import Samples, Task
from edgeward.merge.train import JointOptions
from edgeward.vision.labelled import load_labelled
from edgeward.zoo.network import Network

SIDE = 14

QUESTIONS: dict[str, tuple[int, ...]] = {
    # What is asked of the ten classes: T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot.
    "ten": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    "kind": (0, 1, 0, 1, 0, 2, 0, 2, 3, 2),
    "footwear": (0, 0, 0, 0, 0, 1, 0, 2, 0, 3),
    "tops": (1, 0, 2, 0, 3, 0, 4, 0, 0, 0),
    "sleeves": (0, 0, 1, 0, 1, 0, 1, 0, 0, 0),
    "shoe": (0, 0, 0, 0, 0, 1, 0, 1, 0, 1),
}

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    # Of pictures [n, 1, 28, 28] in 0..1.
    "plain": lambda pictures: pictures,
    "dark": lambda pictures: 0.5 * pictures,
    "mirrored": lambda pictures: pictures.flip(3),
    "blurred": lambda pictures: functional.avg_pool2d(pictures, 3, 1, 1),
    "cropped": lambda pictures: functional.interpolate(pictures[:, :, 3:25, 3:25], size=28, mode="bilinear"),
    "bright": lambda pictures: (1.6 * pictures).clamp(max=1),
}


@dataclass(frozen=True)
class Shape:
    """A network: channels of the first two convolutions, how many more of the second width, linear layers."""

    channels: tuple[int, int]
    depth: int
    hidden: tuple[int, ...]


@dataclass(frozen=True)
class Camera:
    """A question about what a camera sees, which classes come before it, and the network that answers."""

    question: str
    view: str
    shape: Shape
    classes: tuple[int, ...]


HEAVY = [Shape((16, 32), depth, (512, 128)) for depth in (1, 2, 3)]
NARROW, THIN = Shape((16, 32), 2, (128,)), Shape((24, 48), 1, (256, 64))
ALL = tuple(range(10))
SEEN = {"footwear": (1, 5, 7, 8, 9), "tops": (0, 1, 2, 3, 4, 6)}


def _cameras(shapes: list[Shape]) -> dict[str, Camera]:
    every = zip(QUESTIONS, VIEWS, shapes, strict=True)
    return {asked: Camera(asked, view, shape, SEEN.get(asked, ALL)) for asked, view, shape in every}


WORKLOADS: dict[str, dict[str, Camera]] = {
    "high": _cameras([HEAVY[0], HEAVY[0], HEAVY[1], HEAVY[1], HEAVY[0], HEAVY[2]]),
    "mixed": _cameras([HEAVY[0], THIN, HEAVY[2], NARROW, THIN, HEAVY[1]]),
}
"""high: one family, nearly all weights in layers of equal form. mixed: four forms of three families."""


@dataclass(frozen=True)
class Sizes:
    """Pictures of each part and epochs of the unmerged models' training."""

    train: int
    validation: int
    gate: int
    epochs: int


QUICK, FULL = Sizes(500, 300, 300, 4), Sizes(1500, 800, 800, 6)


@dataclass(frozen=True)
class Search:
    """How the search is told to train, how many seconds it has, and what a reader should know of these figures."""

    joint: JointOptions
    seconds: float
    note: str


@dataclass(frozen=True)
class Learning:
    """How the unmerged models were trained. start: an untrained one by name; optimizer: with rates for so many steps."""

    epochs: int
    batch: int
    start: Callable[[str], nn.Module]
    optimizer: Callable[[list[nn.Parameter], int], tuple[Optimizer, LRScheduler]]


SMALL = JointOptions(epochs=6, learning_rate=0.02, batch=64)
DIGITS = "learning rate and batch as in a run on other pictures (8x8 digits), not tuned on these"


@dataclass(frozen=True, eq=False)
class Workload:
    """Trained models with their data, what builds each network, and what took no part in anything."""

    name: str
    builders: Mapping[str, Callable[[], nn.Module]]
    tasks: list[Task]
    held_out: dict[str, Samples]
    search: Search
    learning: Learning
    about: str = ""
    states: dict[str, dict[str, Tensor]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        states = {task.name: {key: one.clone() for key, one in task.module.state_dict().items()} for task in self.tasks}
        object.__setattr__(self, "states", states)

    def factories(self) -> dict[str, Callable[[], nn.Module]]:
        """What builds each network."""
        return dict(self.builders)

    def fresh(self) -> list[Task]:
        """The tasks with modules of their own, as they were before any merging."""
        return [replace(task, network=replace(task.network, module=self._module(task.name))) for task in self.tasks]

    def most_frequent(self) -> dict[str, float]:
        """Held-out accuracy of always saying the most frequent answer."""
        return {name: float(one.targets.bincount().max()) / len(one) for name, one in self.held_out.items()}

    def _module(self, name: str) -> nn.Module:
        module = self.builders[name]()
        module.load_state_dict(self.states[name])
        return module.eval()


def build(camera: Camera) -> nn.Module:
    """Convolutions with batch norms, two of them before pooling, then linear layers."""
    first, wide = camera.shape.channels
    parts: list[nn.Module] = []
    for index, (given, made) in enumerate([(1, first), (first, wide), *[(wide, wide)] * camera.shape.depth]):
        parts += [nn.Conv2d(given, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()]
        parts += [nn.MaxPool2d(2)] if index == 0 else []
    parts.append(nn.Flatten())
    sizes = (wide * (SIDE // 2) ** 2, *camera.shape.hidden)
    for given, made in itertools.pairwise(sizes):
        parts += [nn.Linear(given, made), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], max(QUESTIONS[camera.question]) + 1)).eval()


@functools.cache
def workload(name: str, full: bool) -> Workload:
    """Every camera's model trained on its own pictures, the same way, seeds fixed."""
    torch.set_num_threads(1)
    if name == "lite0":
        from lite0 import lite0

        return lite0(full)
    sizes, cameras = FULL if full else QUICK, WORKLOADS[name]
    tasks, held_out = [], {}
    for index, (called, camera) in enumerate(cameras.items()):
        seen = _pictures("train", camera, index, len(cameras))
        bounds = [0, *itertools.accumulate((sizes.train, sizes.validation, sizes.gate))]
        parts = [Samples(seen.inputs[low:high], seen.targets[low:high]) for low, high in itertools.pairwise(bounds)]
        module = _start(name, called)
        _train(module, parts[0], sizes.epochs)
        tasks.append(Task(Network(called, module, (1, SIDE, SIDE)), *parts))
        held_out[called] = _pictures("t10k", camera, index, len(cameras))
    learning = Learning(sizes.epochs, 64, functools.partial(_start, name), _optimizer)
    builders = {called: functools.partial(build, camera) for called, camera in cameras.items()}
    return Workload(name, builders, tasks, held_out, Search(SMALL, 75.0 if full else 8.0, DIGITS), learning)


@functools.cache
def _fashion(part: str) -> tuple[Tensor, Tensor]:
    """float32 [n, 1, 28, 28] in 0..1, int64 [n]."""
    data = load_labelled(FASHION / f"{part}-images-idx3-ubyte.gz")
    return torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(data.labels)


def _pictures(part: str, camera: Camera, index: int, cameras: int) -> Samples:
    """Of every `cameras`-th picture, those of the camera's classes, as it sees them."""
    pictures, labels = (one[index::cameras] for one in _fashion(part))
    chosen = torch.isin(labels, torch.tensor(camera.classes))
    seen = functional.avg_pool2d(VIEWS[camera.view](pictures[chosen]), 2)
    return Samples(((seen - 0.3) / 0.3).contiguous(), torch.tensor(QUESTIONS[camera.question])[labels[chosen]])


def _start(workload: str, called: str) -> nn.Module:
    """Untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(list(WORKLOADS[workload]).index(called))
        return build(WORKLOADS[workload][called])


def _optimizer(parameters: list[nn.Parameter], steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=5e-4)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def _train(module: nn.Module, data: Samples, epochs: int) -> None:
    optimizer, rates = _optimizer(list(module.parameters()), epochs)
    module.train()
    for epoch in range(epochs):
        for inputs, labels in data.batches(64, epoch):
            if len(inputs) > 1:
                optimizer.zero_grad()
                functional.cross_entropy(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        rates.step()
    module.eval()
