"""Stretches of a chain ready to be run, on either runtime.

    runner = prepare(chain, "onnxruntime", threads=1)
    call = runner.piece(0, 3)      # blocks 0 to 3 on their real inputs
    call()

A runner holds the real output of every block on the example: what a stretch is timed on is what it will see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from edgeward.errors import ConfigError
from edgeward.graph.chain import Chain
from edgeward.graph.stage import BACKENDS, Stage, onnx_stage, torch_stage

__all__ = ["Call", "Runner", "prepare"]

Call = Callable[[], object]


class Runner(Protocol):
    """Makes calls of stretches. fuses: whether the runtime joins operations across block boundaries."""

    fuses: bool

    def stage(self, first: int, last: int) -> Stage:
        """Blocks `first` to `last` as a function from the tensors before them to those behind them."""

    def piece(self, first: int, last: int) -> Call:
        """A call without arguments that runs the stretch once, on its real inputs."""


def prepare(chain: Chain, backend: str, threads: int) -> Runner:
    """A runner on this machine; the thread count of the process is set. Raises ConfigError for another backend."""
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    torch.set_num_threads(threads)
    return _Torch(chain) if backend == "torch" else _OnnxRuntime(chain, threads)


class _Torch:
    fuses = False

    def __init__(self, chain: Chain) -> None:
        self.chain = chain.eval()
        self.inputs = chain.activations()

    def stage(self, first: int, last: int) -> Stage:
        return torch_stage(self.chain, first, last)

    def piece(self, first: int, last: int) -> Call:
        blocks, inputs = [self.chain.blocks[index] for index in range(first, last + 1)], self.inputs[first]

        def call() -> object:
            values = inputs
            with torch.inference_mode():
                for block in blocks:
                    values = block(*values)
            return values

        return call


class _OnnxRuntime:
    fuses = True

    def __init__(self, chain: Chain, threads: int) -> None:
        from edgeward.graph.onnx import export_chain

        self.pieces = export_chain(chain)
        self.threads = threads
        self.inputs = chain.eval().activations()

    def stage(self, first: int, last: int) -> Stage:
        return onnx_stage(self.pieces.segment(first, last), self.threads)

    def piece(self, first: int, last: int) -> Call:
        arrays = [one.detach().numpy() for one in self.inputs[first] if isinstance(one, Tensor)]
        return functools.partial(self.stage(first, last), arrays)
