"""Stretches of a chain ready to be run, on either runtime.

    runner = prepare(chain, "onnxruntime", threads=1)
    call = runner.piece(0, 3)      # blocks 0 to 3 on their real inputs
    call()

A runner holds the real output of every block on the example: what a stretch is timed on is what it will see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from edgeward.errors import ConfigError, TraceError
from edgeward.graph.chain import Chain

__all__ = ["BACKENDS", "Backend", "Call", "Runner", "Stage", "prepare"]

Backend = Literal["torch", "onnxruntime"]
BACKENDS: tuple[Backend, ...] = ("torch", "onnxruntime")
Array = npt.NDArray[Any]
Call = Callable[[], object]
Stage = Callable[[Sequence[Array]], list[Array]]


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
        blocks = [self.chain.blocks[index] for index in range(first, last + 1)]
        if any(not isinstance(one, Tensor) for one in self.inputs[first]):
            raise TraceError(f"what block {first} takes is not only tensors; cut elsewhere or use --cuts layer")

        def run(arrays: Sequence[Array]) -> list[Array]:
            values: Any = [torch.from_numpy(array) for array in arrays]
            with torch.inference_mode():
                for block in blocks:
                    values = block(*values)
            return [value.numpy() for value in values]

        return run

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
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session: Any = onnxruntime.InferenceSession(
                self.pieces.segment(first, last), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own exceptions share no base class
            reason = str(error).splitlines()[0][:300]
            raise TraceError(f"ONNX Runtime refuses blocks {first} to {last}: {reason}; use --backend torch") from error
        names = [port.name for port in session.get_inputs()]

        def run(arrays: Sequence[Array]) -> list[Array]:
            found: list[Array] = session.run(None, dict(zip(names, arrays, strict=True)))
            return found

        return run

    def piece(self, first: int, last: int) -> Call:
        arrays = [one.detach().numpy() for one in self.inputs[first] if isinstance(one, Tensor)]
        return functools.partial(self.stage(first, last), arrays)
