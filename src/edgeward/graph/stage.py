"""A stretch of a network as a plain function of arrays, on either runtime.

    stage = torch_stage(chain, 0, 3)
    stage = onnx_stage(pieces.segment(0, 3), threads=1)
    outputs = stage([image])                  # arrays before block 0 to the arrays behind block 3

Profiles time these functions and hosts run them: what is measured is what is deployed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from edgeward.errors import TraceError
from edgeward.graph.chain import Chain

__all__ = ["BACKENDS", "Array", "Backend", "Stage", "onnx_stage", "torch_stage"]

Backend = Literal["torch", "onnxruntime"]
BACKENDS: tuple[Backend, ...] = ("torch", "onnxruntime")
Array = npt.NDArray[Any]
Stage = Callable[[Sequence[Array]], list[Array]]


def torch_stage(chain: Chain, first: int, last: int) -> Stage:
    """Blocks `first` to `last` on torch, in eval mode.

    Arrays that may be written to may be written to by blocks that work in place. The stage raises TraceError when
    what crosses its cuts is not only tensors.
    """
    blocks = chain.segment(first, last).eval()

    def run(arrays: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            own = (array if array.flags.writeable else array.copy() for array in arrays)
            found = blocks(*(torch.from_numpy(array) for array in own))
        if any(not isinstance(value, Tensor) for value in found):
            raise TraceError(f"what block {last} gives is not only tensors; cut elsewhere or use --cuts layer")
        return [value.numpy() for value in found]

    return run


def onnx_stage(model: bytes, threads: int) -> Stage:
    """An ONNX model on ONNX Runtime. Raises TraceError when the runtime refuses it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions share no base class
        reason = str(error).splitlines()[0][:300]
        raise TraceError(f"ONNX Runtime refuses this part of the network: {reason}; use --backend torch") from error
    names = [port.name for port in session.get_inputs()]

    def run(arrays: Sequence[Array]) -> list[Array]:
        found: list[Array] = session.run(None, dict(zip(names, arrays, strict=True)))
        return found

    return run
