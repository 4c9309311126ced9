"""Measuring packings on this machine: bytes at every cut of a chain, and the seconds to pack and to unpack.

    costs, times = measure_packings(chain, ["int8+zstd", "avg2-bilinear/int8"], samples=[image])
    costs, times = profile_packings(chain, PackingOptions(("default",)), progress=print)

What is packed are real activations, of the samples, else of the chain's example, by the code that hosts run. Whether a
lossy packing costs accuracy is not known from them: its drops stay None until they are measured (`Profile.with_drops`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeward.errors import ConfigError, StoreError, WireError
from edgeward.graph.chain import Chain
from edgeward.profile.file import replace_text
from edgeward.profile.measure import RATIONED, Piece, Samples, calibrate, run_round
from edgeward.profile.packing import IDENTITY, PackingCosts, PackingTimes

if TYPE_CHECKING:
    from edgeward.wire.messages import TensorPart
    from edgeward.wire.packing import Packing

__all__ = ["DEFAULT", "PackingOptions", "load_samples", "measure_packings", "profile_packings"]

DEFAULT = ("identity+zstd", "fp16", "int8", "int8+zstd", "float4-e3m0+zstd", "avg2-bilinear", "avg2-bilinear/int8+zstd")
"""What the name "default" stands for."""
MOST_SAMPLES = 64

Array = npt.NDArray[Any]
Boundary = tuple[Array, ...]


def measure_packings(
    chain: Chain,
    names: Sequence[str],
    *,
    samples: Sequence[Array] | None = None,
    repeats: int = 5,
    threads: int = 1,
) -> tuple[dict[str, PackingCosts], dict[str, PackingTimes]]:
    """Bytes and drops, and seconds on this machine, of packings at every boundary 0 to n of a chain.

    samples: inputs of the network of the example's shape; bytes are the mean over them, times those of the first, the
    median of `repeats` rounds over all boundaries. Drops are 0.0 for lossless packings, None for others. A packing does
    not fit a boundary where its transfer layer fits some tensor not, or its codec cannot take one. The thread count of
    the process is set. Raises ConfigError for packings that are not known and samples that do not fit.
    """
    packings = {name: _parsed(name) for name in names}
    torch.set_num_threads(threads)
    sizes: dict[str, list[list[float]]] = {name: [] for name in packings}
    times, costs = {}, {}
    for number, arguments in enumerate(_inputs(chain, samples)):
        boundaries = _boundaries(chain, arguments)
        for name, packing in packings.items():
            parts = [_packed(packing, tensors) for tensors in boundaries]
            sizes[name].append([math.nan if one is None else sum(part.data.nbytes for part in one) for one in parts])
            if number == 0:
                times[name] = _timed(packing, boundaries, parts, repeats, threads)
    for name, packing in packings.items():
        means = [None if math.isnan(one) else math.ceil(one) for one in np.mean(sizes[name], axis=0)]
        drop = tuple(0.0 if packing.lossless and one is not None else None for one in means)
        costs[name] = PackingCosts(bytes=tuple(means), drop=drop)
    return costs, times


def _parsed(name: str) -> Packing:
    from edgeward.wire.packing import Packing

    if name == IDENTITY:
        raise ConfigError(f"packing {name!r} is always there and needs no measuring; leave it out")
    return Packing.parse(name)


def _packed(packing: Packing, tensors: Boundary) -> tuple[TensorPart, ...] | None:
    """What crosses the link, or None where the packing does not fit."""
    if not tensors or not all(packing.fits(one.shape, one.dtype) for one in tensors):
        return None
    try:
        return packing.pack(tensors)
    except (WireError, ConfigError):
        return None


def _timed(
    packing: Packing,
    boundaries: Sequence[Boundary],
    packed: Sequence[tuple[TensorPart, ...] | None],
    repeats: int,
    threads: int,
) -> PackingTimes:
    from edgeward.wire.packing import unpack

    calls: dict[Piece, Callable[[], object]] = {}
    for boundary, parts in enumerate(packed):
        if parts is not None:
            calls[boundary, 0] = functools.partial(packing.pack, boundaries[boundary])
            calls[boundary, 1] = functools.partial(unpack, parts)
    taken, counts = Samples.empty(tuple(calls)), calibrate(calls)
    for _ in range(repeats if calls else 0):
        taken = taken.plus(run_round(calls, counts))
    seconds = _charged(taken, threads)
    pack, unpacking = (
        tuple(float(np.median(seconds[k, side])) if (k, side) in seconds else None for k in range(len(packed)))
        for side in (0, 1)
    )
    return PackingTimes(pack=pack, unpack=unpacking)


def _charged(taken: Samples, threads: int) -> Mapping[Piece, Sequence[float]]:
    """Wall seconds of every round; where processor time is rationed, processor seconds, stretched as all were."""
    wall, cpu = (sum(map(sum, values.values())) for values in (taken.wall, taken.cpu))
    stretched = wall / max(cpu, 1e-9)
    if threads > 1 or stretched <= RATIONED:
        return taken.wall
    return {piece: [stretched * one for one in values] for piece, values in taken.cpu.items()}


def _inputs(chain: Chain, samples: Sequence[Array] | None) -> list[tuple[Tensor, ...]]:
    """Arguments of `Chain.activations`, none for the traced example."""
    if samples is None:
        return [()]
    example = [one for one in chain.example_inputs if isinstance(one, Tensor)]
    if len(example) != 1 or not samples:
        raise ConfigError(f"{len(samples)} samples of a network with {len(example)} inputs; give samples of one input")
    shape, dtype = tuple(example[0].shape), example[0].numpy().dtype
    for one in samples:
        if one.shape != shape or one.dtype != dtype:
            raise ConfigError(f"a sample is {one.dtype}{list(one.shape)}, the network takes {dtype}{list(shape)}")
    return [(torch.from_numpy(np.ascontiguousarray(one)),) for one in samples]


def _boundaries(chain: Chain, arguments: tuple[Tensor, ...]) -> list[Boundary]:
    """The tensors at boundaries 0 to n."""
    values = chain.eval().activations(*arguments)
    with torch.no_grad():
        copies = (one.clone() if isinstance(one, Tensor) else one for one in values[-1])
        values.append(tuple(chain.blocks[-1](*copies)))
    return [
        tuple(np.ascontiguousarray(one.detach().numpy()) for one in crossing if isinstance(one, Tensor))
        for crossing in values
    ]


def load_samples(path: Path, chain: Chain) -> list[Array]:
    """Inputs of a chain from a .npy file [N, ...], or a folder of such files: up to MOST_SAMPLES, in order of names.

    Raises ConfigError for files that are missing, are no arrays, or have another shape than the network's input.
    """
    shape = tuple(chain.example_inputs[0].shape)
    found: list[Array] = []
    for file in sorted(path.glob("*.npy")) if path.is_dir() else [path]:
        try:
            rows = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"--samples {file}: no .npy file ({error}); write one with numpy.save") from error
        rows = rows[None] if rows.shape == shape[1:] else rows
        if rows.shape[1:] != shape[1:] or len(rows) < shape[0]:
            raise ConfigError(f"--samples {file} is {list(rows.shape)}; the network takes {list(shape)}")
        many = min(len(rows) // shape[0], MOST_SAMPLES - len(found))
        found += [np.array(rows[k * shape[0] : (k + 1) * shape[0]]) for k in range(many)]
    if not found:
        raise ConfigError(f"--samples {path}: no .npy file there; give a file or folder written by numpy.save")
    return found


@dataclass(frozen=True)
class PackingOptions:
    """What to measure and how, see `measure_packings`. Of the names "default" stands for DEFAULT."""

    names: tuple[str, ...]
    samples: tuple[Array, ...] | None = None
    repeats: int = 5
    threads: int = 1

    def expanded(self) -> list[str]:
        """The names, each once. Raises ConfigError for one that is not known."""
        names = [one for name in self.names for one in (DEFAULT if name == "default" else (name,))]
        return [_parsed(name).name for name in dict.fromkeys(names)]


def profile_packings(
    chain: Chain,
    options: PackingOptions,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    partial: Path | None = None,
) -> tuple[dict[str, PackingCosts], dict[str, PackingTimes]]:
    """`measure_packings` one by one.

    progress: called with packings done, packings in all, and what is being done. partial: a file that keeps finished
    packings; a later run with the same chain and options goes on from it. Raises ConfigError, StoreError.
    """
    names, samples = options.expanded(), options.samples
    digest = hashlib.sha256(b"".join(one.tobytes() for one in samples or ())).hexdigest()
    identity = {"fingerprint": chain.fingerprint, "how": [options.repeats, options.threads, digest]}
    costs, times = _resumed(partial, identity)
    for done, name in enumerate(names):
        progress(done, len(names), f"packing {name}")
        if name not in costs:
            found = measure_packings(chain, [name], samples=samples, repeats=options.repeats, threads=options.threads)
            costs, times = costs | found[0], times | found[1]
            if partial is not None:
                kept = {name: [costs[name].model_dump(), times[name].model_dump()] for name in costs}
                replace_text(partial, json.dumps({"identity": identity, "packings": kept}))
    if names:
        progress(len(names), len(names), "packings measured")
    return {name: costs[name] for name in names}, {name: times[name] for name in names}


def _resumed(
    partial: Path | None, identity: Mapping[str, object]
) -> tuple[dict[str, PackingCosts], dict[str, PackingTimes]]:
    if partial is None or not partial.is_file():
        return {}, {}
    try:
        record = json.loads(partial.read_text())
        kept = record["packings"] if record["identity"] == identity else {}
        costs = {name: PackingCosts.model_validate(one) for name, (one, _) in kept.items()}
        return costs, {name: PackingTimes.model_validate(one) for name, (_, one) in kept.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{partial} is damaged: {error}; remove it to measure from the beginning") from error
