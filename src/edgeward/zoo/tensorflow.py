"""What is read of a TensorFlow graph: its nodes and its constants.

    graph = read_graphdef(path)                       # or read_tfjs(path)
    graph.constant("Conv/weights", (3, 3, 3, 32))

There is no executor: the networks of the zoo are plain torch modules that take these constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import ModelError, nearest

__all__ = ["MAX_FILE_BYTES", "MAX_NODES", "MAX_RANK", "Node", "TensorFlowGraph", "element_count"]

MAX_FILE_BYTES = 1 << 30
MAX_NODES = 100_000
MAX_RANK = 8


@dataclass(frozen=True)
class Node:
    """One operation: its inputs are names of nodes, as the file has them (`^control`, `name:1`)."""

    name: str
    op: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TensorFlowGraph:
    """nodes: in the order of the file. constants: numeric constants by the name of their node."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, npt.NDArray[Any]]

    def constant(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A constant as float32. ModelError when it is absent, of another shape or not finite."""
        if name not in self.constants:
            raise ModelError(
                f"the graph has no constant {name!r} ({nearest(name, list(self.constants)[:2000])}); "
                "it is another network than the one asked for"
            )
        value = self.constants[name]
        if value.shape != shape:
            raise ModelError(f"constant {name!r} has shape {list(value.shape)}, expected {list(shape)}")
        with np.errstate(over="ignore"):
            value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise ModelError(f"constant {name!r} holds values that are not finite; obtain the file again")
        return value


def element_count(shape: tuple[int, ...], name: str) -> int:
    """How many elements a shape has. ModelError when it is negative, too deep or larger than any file allowed."""
    count = 1
    if len(shape) > MAX_RANK:
        raise ModelError(f"constant {name!r} has {len(shape)} dimensions; at most {MAX_RANK} are read")
    for size in shape:
        count *= max(size, 1)
        if size < 0 or count > MAX_FILE_BYTES:
            raise ModelError(f"constant {name!r} has the shape {list(shape)}; sizes are 0 to {MAX_FILE_BYTES} in all")
    return 0 if 0 in shape else count
