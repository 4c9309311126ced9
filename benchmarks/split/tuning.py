"""Accuracy with a transfer layer, as inserted and fine-tuned, on real pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from harness import FASHION

from edgeward.graph.chain import Chain, cut
from edgeward.graph.transfer import parse_transfer
from edgeward.split.tune import TuneOptions, tune
from edgeward.vision.labelled import Labelled, load_labelled
from edgeward.zoo.pretrained import load_pretrained
from edgeward.zoo.reference import build

EPOCHS = 2


@dataclass(frozen=True)
class Loss:
    """Shares of top-1 accuracy lost as inserted and after tuning; standard error of the difference."""

    layer: str
    stage: int
    epochs: int
    before: float
    inserted: float
    tuned: float
    control: float
    error: float


def drops(data: Path) -> list[Loss]:
    """On CIFAR-10: ResNet-20 as published, behind its first and second stage."""
    module = build("cifar-resnet20")
    load_pretrained(module, data / "cifar10" / "resnet20-12fca82f.th")
    chain = cut(module.eval(), torch.zeros(1, 3, 32, 32))
    train = load_labelled(data / "cifar10" / "cifar10_jpeg_train5k.npz")
    test = load_labelled(data / "cifar10" / "cifar10_jpeg_test1k.npz")
    return _losses(chain, train, test, (1, 2), ("avg2-bilinear", "max2-nearest"))


def fashion_drops() -> list[Loss]:
    """On Fashion-MNIST: ResNet-20, first trained for three epochs on 12,000 pictures, then tuned on the same."""
    chain = cut(build("cifar-resnet20").eval(), torch.zeros(1, 3, 32, 32))
    train = load_labelled(FASHION / "train-images-idx3-ubyte.gz").fitted((3, 32, 32)).take(slice(0, 12_000))
    test = load_labelled(FASHION / "t10k-images-idx3-ubyte.gz").fitted((3, 32, 32)).take(slice(0, 2_000))
    torch.set_num_threads(1)
    first = TuneOptions(epochs=3, learning_rate=0.1, distillation=0.0)
    trained = tune(chain, stage_end(chain, 1), None, train, test, first).chain
    return _losses(trained, train, test, (1, 2), ("avg2-bilinear",))


def _losses(
    chain: Chain, train: Labelled, test: Labelled, stages: tuple[int, ...], layers: tuple[str, ...]
) -> list[Loss]:
    """`control` is the same budget of tuning without any layer."""
    torch.set_num_threads(1)
    options = TuneOptions(epochs=EPOCHS)
    control = tune(chain, stage_end(chain, 1), None, train, test, options)
    found = []
    for stage in stages:
        after = stage_end(chain, stage)
        for name in layers:
            done = tune(chain, after, parse_transfer(name), train, test, options)
            before = done.accuracy_before
            error = (2 * before * (1 - before) / len(test.labels)) ** 0.5
            found.append(
                Loss(
                    name, stage, EPOCHS, before, before - done.accuracy_inserted, before - done.accuracy_tuned,
                    control.accuracy_tuned, error,
                )
            )  # fmt: skip
    return found


def stage_end(chain: Chain, stage: int) -> int:
    """The last block whose name is of a stage."""
    return max(index for index, cost in enumerate(chain.costs) if cost.name.startswith(f"stage{stage}."))
