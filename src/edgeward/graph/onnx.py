"""Any stretch of a chain as an ONNX model.

    pieces = export_chain(chain)
    session = onnxruntime.InferenceSession(pieces.segment(0, 9))

The network is exported once, with every cut as an output; a stretch is then the part of the graph between two cuts,
so a runtime may fuse within it but not across its ends.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeward.errors import TraceError
from edgeward.graph.chain import Chain
from edgeward.graph.trace import restored
from edgeward.zoo.onnxgraph import behind

__all__ = ["OnnxPieces", "export_chain", "export_module"]

OPSET = 18


class _Exposed(nn.Module):
    """The chain with the values at every cut as outputs."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.blocks = chain.blocks

    def forward(self, *values: Any) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for block in self.blocks:
            values = block(*values)
            # A name of its own for every cut, also where a value passes through a block unchanged.
            values = tuple(one.view_as(one) if isinstance(one, Tensor) else one for one in values)
            found.extend(one for one in values if isinstance(one, Tensor))
        return tuple(found)


@dataclass(frozen=True)
class OnnxPieces:
    """An exported chain. names[0] are the inputs, names[k + 1] the tensors after block k."""

    model: Any
    names: tuple[tuple[str, ...], ...]

    def segment(self, first: int, last: int) -> bytes:
        """Blocks `first` to `last`, both included, as the bytes of an ONNX model."""
        graph = self.model.graph
        given, wanted = self.names[first], self.names[last + 1]
        needed = behind(graph.node, wanted, known=set(given).__contains__)
        ports = {port.name: port for port in (*graph.input, *graph.output)}
        piece = onnx.helper.make_graph(
            [graph.node[place] for place in needed.places],
            f"blocks {first} to {last}",
            [ports[name] for name in given],
            [ports[name] for name in wanted],
            [tensor for tensor in graph.initializer if tensor.name in needed.left],
        )
        made = onnx.helper.make_model(piece, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        data: bytes = made.SerializeToString()
        return data


def export_chain(chain: Chain) -> OnnxPieces:
    """The chain in eval mode as ONNX. Raises TraceError when an operation cannot be exported."""
    training = chain.training
    chain.eval()
    inputs = tuple(one for one in chain.example_inputs if isinstance(one, Tensor))
    if len(inputs) != len(chain.example_inputs):
        raise TraceError("only chains whose inputs are all tensors can be exported to ONNX")
    names = [tuple(f"input{index}" for index in range(len(inputs)))]
    with torch.no_grad():
        values: tuple[Any, ...] = inputs
        for number, block in enumerate(chain.blocks):
            values = block(*(one.clone() if isinstance(one, Tensor) else one for one in values))
            count = sum(isinstance(one, Tensor) for one in values)
            names.append(tuple(f"cut{number}_{index}" for index in range(count)))
    try:
        model = _exported(_Exposed(chain).eval(), inputs, names)
    except Exception as error:  # the exporter's exceptions share no base class
        reason = " ".join(str(error).split())[:300]
        raise TraceError(f"this network cannot be exported to ONNX: {reason}; use --backend torch") from error
    finally:
        chain.train(training)
    return OnnxPieces(model, tuple(names))


def export_module(module: nn.Module, example: Tensor) -> bytes:
    """A network with one input and tensors as outputs, in eval mode, as ONNX with a free batch dimension.

    Its input is "input"; its outputs "output0" and so on. Raises TraceError when an operation cannot be exported.
    """
    with restored(module), tempfile.TemporaryDirectory() as folder, _quiet(), torch.no_grad():
        path = Path(folder) / "network.onnx"
        try:
            count = len(pytree.tree_leaves(module.eval()(example)))
            names = ["input", *(f"output{index}" for index in range(count))]
            torch.onnx.export(
                module,
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=names[:1],
                output_names=names[1:],
                dynamic_axes={name: {0: "batch"} for name in names},
            )
        except Exception as error:  # the exporter's exceptions share no base class
            reason = " ".join(str(error).split())[:300]
            raise TraceError(f"this network cannot be exported to ONNX: {reason}") from error
        return path.read_bytes()


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[tuple[str, ...]]) -> Any:
    with tempfile.TemporaryDirectory() as folder, _quiet(), torch.no_grad():
        path = Path(folder) / "chain.onnx"
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(names[0]),
            output_names=[name for cut in names[1:] for name in cut],
        )
        return onnx.load(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
