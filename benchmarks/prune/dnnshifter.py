"""Exact conversion of sparse networks: how equal, how small, how fast, beside deletion of zero filters alone.

    rows = dnnshifter(full=False)               # for benchmarks/prune/bench.py
    python benchmarks/prune/dnnshifter.py --full

Networks have the weights that a seed draws, random biases and batch-norm statistics, and masks by magnitude with at
least 16 weights left in each layer: what is timed and compared depends on where zeros are, not on accuracy. The levels
are those of DNNShifter (Eccles et al., Future Generation Computer Systems 2024): 0.8 to the power L of the weights.
"""

from __future__ import annotations

import copy
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from harness import interleaved, row  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edgeward.prune.exact import Converted, convert  # noqa: E402
from edgeward.prune.mask import Mask  # noqa: E402
from edgeward.prune.scope import prunable, select  # noqa: E402
from edgeward.zoo.reference import build  # noqa: E402

Rows = list[dict[str, Any]]
NETWORKS = {
    "cifar-vgg16": 32,
    "cifar-resnet56": 32,
    "resnet18": 64,
    "resnet50": 64,
    "mobilenet-v2": 64,
    "vit-tiny": 224,
}
KEEPS = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.001)
LEVELS = (6, 9, 12, 16, 19, 22, 25)
TIMED = {"cifar-vgg16": 10, "resnet50": 200}
"""Networks of the levels, with the classes of CIFAR-10 and Tiny ImageNet."""
PAPER = {"cifar-vgg16": "DNNShifter's VGG-16 at L 25: 5.14 x fewer parameters, 1.6 to 1.8 x faster", "resnet50": "DNNShifter's ResNet-50 at L 25: 1.87 x fewer parameters"}  # fmt: skip
SECONDS = {"cifar-vgg16": (32, "<= 2"), "vgg16": (224, ""), "resnet50": (224, "<= 5")}
SCOPES = {"mobilenet-v2": "erk"}
"""Where magnitudes are compared, if not globally: of random weights that would leave no path through some layers."""
FLOAT, INDEX = 4, 4


def dnnshifter(full: bool, tiny: bool = False) -> Rows:
    """All rows. tiny: one small network, to see that it runs."""
    torch.set_num_threads(1)
    if tiny:
        return [
            *exactness(("cifar-resnet56",), (0.02,)),
            *levels("cifar-vgg16", (22,), 4),
            *seconds({"cifar-vgg16": (32, "<= 2")}, 2),
        ]
    repeats = 60 if full else 12
    timed = [line for name in TIMED for line in levels(name, LEVELS if full else LEVELS[-2:], repeats)]
    return [*exactness(tuple(NETWORKS), KEEPS if full else KEEPS[-3:]), *timed, *seconds(SECONDS, 5 if full else 2)]


def sparse(name: str, keep: float, classes: int | None = None, seed: int = 0) -> nn.Module:
    """A reference network with that share of its weights, and biases and statistics as after some training."""
    generator = torch.Generator().manual_seed(seed)
    network = build(name, classes, seed).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.3, generator=generator)
    alive = Mask.ones(network, prunable(network))
    magnitudes = {weight: network.get_parameter(weight).detach().abs() for weight in alive.tensors}
    floor = min(16, int(keep * alive.total / len(alive.tensors)) // 2)
    select(magnitudes, alive, keep, SCOPES.get(name, "global"), floor=floor).apply_(network)
    return network


def picture(side: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def exactness(names: tuple[str, ...], keeps: tuple[float, ...]) -> Rows:
    """Largest differences of outputs, compensated and naive."""
    rows = []
    for name in names:
        found: dict[str, list[Converted]] = {"exact": [], "naive": []}
        example = picture(NETWORKS[name])
        dense = parameters(build(name))
        for keep in keeps:
            network = sparse(name, keep)
            for kind, converted in found.items():
                converted.append(convert(network, example, inputs=(picture(NETWORKS[name], 4),), naive=kind == "naive"))
        for kind, converted in found.items():
            relative = [one.difference.largest / max(1.0, one.difference.scale) for one in converted]
            each = ", ".join(
                f"{100 * (1 - keep):.4g} %: {difference:.2g} at {parameters(one.module):,} parameters"
                for keep, difference, one in zip(keeps, relative, converted, strict=True)
            )
            what = (
                "constants compensated, unread channels removed"
                if kind == "exact"
                else "zero filters deleted, their constants dropped"
            )
            rows.append(
                row(f"exactness.{name}.{kind}", f"largest difference of a logit (relative beyond 1) between the sparse network and the smaller one, {what}, worst of {len(keeps)} sparsities, six pictures of noise",
                    baseline=f"the sparse network, {dense:,} parameters", ours=max(relative), spread=[min(relative), max(relative)], unit="",
                    bar="<= 1e-5" if kind == "exact" else "", note=each)
            )  # fmt: skip
    return rows


def levels(name: str, steps: tuple[int, ...], repeats: int) -> Rows:
    """Parameters, bytes and batch-1 latency at the levels."""
    rows = []
    example = picture(NETWORKS[name])
    for level in steps:
        network = sparse(name, 0.8**level, TIMED[name])
        start = time.perf_counter()
        converted = convert(network, example)
        took = time.perf_counter() - start
        naive = convert(network, example, naive=True)
        variants = {"sparse": network, "same": copy.deepcopy(network), "naive": naive.module, "exact": converted.module}
        runs: dict[str, Callable[[], float]] = {
            kind: functools.partial(timed, module, example) for kind, module in variants.items()
        }
        interleaved(runs, 2)
        taken = interleaved(runs, repeats)
        here = f"{name} ({NETWORKS[name]} x {NETWORKS[name]}) at level {level}, {100 * 0.8**level:.3g} % of the weights"
        sizes = {kind: parameters(module) for kind, module in variants.items()}
        rows += [
            row(f"level.{name}.{level}.{kind}.parameters", f"parameters of the sparse network stored densely / of the {kind} conversion, {here}",
                baseline=f"sparse, {sizes['sparse']:,}", ours=sizes["sparse"] / sizes[kind], unit="x",
                note=f"{sizes[kind]:,} parameters" + (f"; {PAPER[name]}" if level == LEVELS[-1] else ""))
            for kind in ("naive", "exact")
        ]  # fmt: skip
        for kind in ("same", "naive", "exact"):
            speedups = [before / after for before, after in zip(taken["sparse"], taken[kind], strict=True)]
            low, high = statistics.quantiles(speedups, n=20)[0], statistics.quantiles(speedups, n=20)[-1]
            what = "a copy of itself: the noise floor" if kind == "same" else f"the {kind} conversion"
            rows.append(
                row(f"level.{name}.{level}.{kind}.speedup", f"milliseconds of one picture, sparse network with dense kernels / {what}, {here}, median of {repeats} paired runs (spread: 5th and 95th percentile)",
                    baseline=f"sparse, {1000 * statistics.median(taken['sparse']):.3g} ms", ours=statistics.median(speedups), spread=[low, high], unit="x",
                    note=f"{1000 * statistics.median(taken[kind]):.3g} ms")
            )  # fmt: skip
        stored = storage(network)
        note = ", ".join(f"{kind} {size:,} bytes" for kind, size in stored.items())
        rows += [
            row(f"level.{name}.{level}.bytes_over_sparse_storage", f"bytes of the exact conversion stored densely / of the sparse weights in the smaller of CSR and bit mask, {here}",
                baseline=note, ours=FLOAT * sizes["exact"] / min(stored["CSR"], stored["bit mask"]), unit="x"),
            row(f"level.{name}.{level}.seconds", f"seconds of one conversion with its comparison, {here}", baseline="none", ours=took, unit="s",
                note=f"differs by {converted.difference.largest:.2g}, naive by {naive.difference.largest:.2g}"),
        ]  # fmt: skip
    return rows


def seconds(networks: dict[str, tuple[int, str]], repeats: int) -> Rows:
    """How long a conversion takes, tracing and comparison included."""
    rows = []
    for name, (side, bar) in networks.items():
        network, example = sparse(name, 0.01), picture(side)
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            convert(network, example)
            taken.append(time.perf_counter() - start)
        rows.append(
            row(f"convert.{name}.seconds", f"seconds to convert {name} at 99 % sparsity, {side} x {side}, tracing and comparison included, least of {repeats}",
                baseline="none", ours=min(taken), spread=[min(taken), max(taken)], unit="s", bar=bar)
        )  # fmt: skip
    return rows


def storage(network: nn.Module) -> dict[str, int]:
    """Bytes of all parameters: dense, as compressed sparse rows, and as values with a bit for each place."""
    dense = compressed = masked = 0
    for tensor in network.parameters():
        count, size = int(torch.count_nonzero(tensor)), tensor.numel()
        dense += FLOAT * size
        pruned = tensor.dim() > 1
        compressed += (FLOAT + INDEX) * count + INDEX * (len(tensor) + 1) if pruned else FLOAT * size
        masked += FLOAT * count + (size + 7) // 8 if pruned else FLOAT * size
    return {"dense": dense, "CSR": compressed, "bit mask": masked}


def parameters(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


def timed(network: nn.Module, example: Tensor) -> float:
    with torch.inference_mode():
        start = time.perf_counter()
        network(example)
        return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(dnnshifter("--full" in sys.argv, "--tiny" in sys.argv), indent=1))
