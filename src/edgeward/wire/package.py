"""A stretch of a network as it is shipped to a host: an ONNX model, or a recipe and weights; never code.

    package = onnx_package(pieces, chain.fingerprint, "resnet50", 3, 9)
    message = package.to_message()
    stage = Package.of_message(message).open(threads=1)         # on the host

The torch form names one of edgeward's reference networks or holds a transformers config; the host builds it, cuts it
the same way, and loads the stretch's weights from safetensors. A user's own module ships as ONNX.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from edgeward.errors import EdgewardError, WireError
from edgeward.graph.chain import Chain, CutOptions, cut
from edgeward.graph.onnx import OnnxPieces
from edgeward.graph.stage import Stage, onnx_stage, torch_stage
from edgeward.wire.messages import Message, TensorPart

__all__ = ["Package", "onnx_package", "torch_package"]

_MAX_ELEMENTS = 1 << 26
_DTYPES = {"float32": torch.float32, "int64": torch.int64}


@dataclass(frozen=True)
class Package:
    """Blocks `first` to `last` of the network with this fingerprint; `payload` is ONNX or safetensors.

    recipe: of the torch form, how to build and cut the network (see `torch_package`). working_bytes: memory for
    activations while it runs.
    """

    model: str
    fingerprint: str
    first: int
    last: int
    form: Literal["onnx", "torch"]
    payload: bytes = field(repr=False)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    working_bytes: int = 0

    @property
    def stage_id(self) -> str:
        """Equal for equal stretches of equal networks with equal weights."""
        return f"{self.form}-{self.first}-{self.last}-{hashlib.sha256(self.payload).hexdigest()[:24]}"

    def to_message(self) -> Message:
        """The order to take this stretch."""
        meta = {
            name: getattr(self, name) for name in ("model", "fingerprint", "first", "last", "form", "working_bytes")
        }
        payload = TensorPart("identity", "U8", (len(self.payload),), memoryview(self.payload))
        return Message("deploy", {**meta, "recipe": dict(self.recipe), "stage": self.stage_id}, (payload,))

    @classmethod
    def of_message(cls, message: Message) -> Package:
        """The package in an order. Raises WireError when it is not one, or its bytes are not the announced ones."""
        meta = message.meta
        try:
            package = cls(
                str(meta["model"]),
                str(meta["fingerprint"]),
                int(meta["first"]),
                int(meta["last"]),
                meta["form"],
                bytes(message.tensors[0].data),
                dict(meta["recipe"]),
                int(meta["working_bytes"]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WireError(
                f"an order to deploy lacks {error}; sender and host may be of different versions"
            ) from error
        if package.form not in ("onnx", "torch") or not 0 <= package.first <= package.last:
            raise WireError(
                f"an order to deploy blocks {package.first} to {package.last} as {package.form!r} is invalid"
            )
        if package.stage_id != meta.get("stage"):
            raise WireError(
                f"blocks {package.first} to {package.last} of {package.model!r} arrived damaged; send again"
            )
        return package

    def open(self, threads: int) -> Stage:
        """The stretch ready to run. Raises EdgewardError when this host cannot build or load it."""
        if self.form == "onnx":
            return onnx_stage(self.payload, threads)
        torch.set_num_threads(threads)
        chain = _rebuilt(self.recipe)
        if chain.fingerprint != self.fingerprint:
            raise WireError(
                f"this host cuts {self.model!r} otherwise (fingerprint {chain.fingerprint[:8]}, wanted "
                f"{self.fingerprint[:8]}); install the same versions of edgeward and torch, or deploy as ONNX"
            )
        try:
            chain.segment(self.first, self.last).load_state_dict(load(self.payload))
        except (SafetensorError, RuntimeError) as error:
            raise WireError(f"weights of {self.model!r} do not fit: {' '.join(str(error).split())[:200]}") from error
        return torch_stage(chain, self.first, self.last)


def onnx_package(chain: Chain, pieces: OnnxPieces, model: str, first: int, last: int) -> Package:
    """Blocks `first` to `last` of a chain that was exported."""
    payload = pieces.segment(first, last)
    return Package(model, chain.fingerprint, first, last, "onnx", payload, {}, _working_bytes(chain, first, last))


def torch_package(chain: Chain, recipe: Mapping[str, Any], model: str, first: int, last: int) -> Package:
    """Blocks `first` to `last` with their weights.

    recipe: {"reference": NAME} or {"config": the transformers config}, "shape" and "dtype" of the example,
    "granularity" and "max_tensors" of the cut, and "transfers": [[block, name], ...] in the order they were added.
    """
    state = {name: value.detach().clone() for name, value in chain.segment(first, last).state_dict().items()}
    working = _working_bytes(chain, first, last)
    return Package(model, chain.fingerprint, first, last, "torch", save(state), recipe, working)


def _working_bytes(chain: Chain, first: int, last: int) -> int:
    return max(cost.peak_bytes for cost in chain.costs[first : last + 1])


def _rebuilt(recipe: Mapping[str, Any]) -> Chain:
    from edgeward.graph.transfer import parse_transfer, with_transfer
    from edgeward.zoo.network import network_of_recipe

    try:
        module = network_of_recipe(recipe)
        shape = tuple(int(side) for side in recipe["shape"])
        if min(shape) < 1 or math.prod(shape) > _MAX_ELEMENTS:
            raise WireError(f"an example of {list(shape)} is outside 1 to {_MAX_ELEMENTS} values")
        example = torch.zeros(shape, dtype=_DTYPES[str(recipe["dtype"])])
        options = CutOptions(cast(Any, recipe["granularity"]), int(recipe["max_tensors"]))
        chain = cut(module.eval(), example, options=options)
        for after, name in recipe.get("transfers", ()):
            channels = chain.activations()[int(after) + 1][0].shape[1]
            chain = with_transfer(chain, int(after), parse_transfer(str(name), channels))
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a recipe to build a network is invalid: {error}") from error
    except EdgewardError as error:
        raise WireError(f"this host cannot build the network: {error}") from error
    return chain
