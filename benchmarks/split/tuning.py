"""Accuracy with a transfer layer, as inserted and fine-tuned, on real pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgeward.graph.chain import Chain, cut
from edgeward.graph.transfer import parse_transfer
from edgeward.split.tune import TuneOptions, tune
from edgeward.vision.labelled import load_labelled
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
    """ResNet-20 behind its first and second stage; `control` is the same budget of tuning without any layer."""
    torch.set_num_threads(1)
    module = build("cifar-resnet20")
    load_pretrained(module, data / "cifar10" / "resnet20-12fca82f.th")
    chain = cut(module.eval(), torch.zeros(1, 3, 32, 32))
    train = load_labelled(data / "cifar10" / "cifar10_jpeg_train5k.npz")
    test = load_labelled(data / "cifar10" / "cifar10_jpeg_test1k.npz")
    options = TuneOptions(epochs=EPOCHS)
    control = tune(chain, stage_end(chain, 1), None, train, test, options)
    found = []
    for stage in (1, 2):
        after = stage_end(chain, stage)
        for name in ("avg2-bilinear", "max2-nearest"):
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
