"""What scoring ResNet-50 costs, beside the forward and backward passes that it cannot do without.

seconds(batch=16, repeats=3)["drive:d5"]         # {"seconds": ..., "ratio": ...}
peak_bytes("drive:d5", batch=16)                 # of a process that does nothing else
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn import functional

from edgeward.prune.criteria import parse_criterion
from edgeward.prune.mask import Mask
from edgeward.prune.scope import prunable
from edgeward.zoo.reference import build

CRITERIA = ("drive:d5", "snip", "drive:d3", "grasp", "synflow", "magnitude")


def works(batch: int, criteria: Sequence[str] = CRITERIA) -> dict[str, Callable[[], object]]:
    """A plain forward and backward of ResNet-50 at 224 x 224 in train mode, and every criterion on the same batch."""
    torch.set_num_threads(1)
    model = build("resnet50", 1000, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, 224, 224, generator=generator)
    labels = torch.randint(0, 1000, (batch,), generator=generator)
    mask = Mask.ones(model, prunable(model))

    def plain() -> object:
        model.train()
        return torch.autograd.grad(functional.cross_entropy(model(images), labels), list(model.parameters()))

    found: dict[str, Callable[[], object]] = {"plain": plain}
    for name in criteria:
        criterion = parse_criterion(name)
        found[name] = lambda criterion=criterion: criterion.score(model, [(images, labels)], mask)  # type: ignore[misc]
    return found


def seconds(batch: int, repeats: int, criteria: Sequence[str] = CRITERIA) -> dict[str, dict[str, float]]:
    """Best of interleaved runs, and its ratio to the plain passes."""
    runs = works(batch, criteria)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, work in runs.items():
            started = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
    plain = min(taken["plain"])
    return {name: {"seconds": min(values), "ratio": min(values) / plain} for name, values in taken.items()}


def peak_bytes(name: str, batch: int) -> int:
    """Largest resident memory of a process that builds the network and does this once."""
    done = subprocess.run(
        [sys.executable, __file__, name, str(batch)], check=True, capture_output=True, text=True, timeout=600
    )
    return int(done.stdout)


if __name__ == "__main__":
    works(int(sys.argv[2]))[sys.argv[1]]()
    # Not getrusage: its figure is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
