"""The network of a plan, cut as it was when it was profiled.

    network = open_split(plan)                           # a reference network by the plan's own name
    network = open_split(plan, "nets.py:build", weights=Path("nets.safetensors"))
    network.package(0, 6, "onnxruntime")

Raises PlanError when the network is not the one that was planned.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeward.errors import EdgewardError, PlanError
from edgeward.graph.chain import Chain, CutOptions, cut
from edgeward.graph.onnx import OnnxPieces, export_chain
from edgeward.plan.plan import Plan
from edgeward.wire.package import Package, onnx_package, torch_package
from edgeward.zoo.network import Network, example_of, open_network
from edgeward.zoo.pretrained import load_pretrained

__all__ = ["SplitNetwork", "open_split"]

_MOST_TENSORS = 4


@dataclass(frozen=True)
class SplitNetwork:
    """A chain and what makes it again elsewhere. recipe: None when it can only be shipped as ONNX."""

    model: str
    chain: Chain
    recipe: Mapping[str, Any] | None = None

    def package(self, first: int, last: int, backend: str) -> Package:
        """Blocks `first` to `last` for a host with this backend. Raises TraceError when they cannot be exported."""
        key = first, last, backend
        if key not in self._packages:
            if backend == "torch" and self.recipe is not None:
                made = torch_package(self.chain, self.recipe, self.model, first, last)
            else:
                made = onnx_package(self.chain, self._pieces, self.model, first, last)
            self._packages[key] = made
        return self._packages[key]

    @cached_property
    def _packages(self) -> dict[tuple[int, int, str], Package]:
        return {}

    @cached_property
    def _pieces(self) -> OnnxPieces:
        return export_chain(self.chain)


def open_split(plan: Plan, spec: str = "", weights: Path | None = None, shape: str | None = None) -> SplitNetwork:
    """The plan's network, or the one `spec` names (see `zoo.network`), with weights from a file.

    shape: of one input sample, such as "3x224x224", where the network does not say. Raises EdgewardError when it
    cannot be opened, PlanError when no way to cut it gives the blocks that were planned.
    """
    network = open_network(spec or plan.model)
    if weights is not None:
        load_pretrained(network.module, weights)
    example = example_of(network, shape, 1)
    found: list[int] = []
    for count, granularity in itertools.product(range(1, _MOST_TENSORS + 1), ("layer", "op")):
        options = CutOptions("op" if granularity == "op" else "layer", count)
        try:
            chain = cut(network.module.eval(), example, options=options)
        except EdgewardError:
            if not found:
                raise
            continue
        if chain.fingerprint == plan.fingerprint:
            return SplitNetwork(plan.model, chain, _recipe(network, example, options))
        found.append(len(chain))
    raise PlanError(
        f"the plan is for another network than {spec or plan.model!r}: it has {plan.stages[-1].last + 1} blocks of "
        f"fingerprint {plan.fingerprint[:8]}, this network cuts into {found[0]} others; give the planned network "
        "(--network) and input shape (--shape), or plan again"
    )


def _recipe(network: Network, example: Tensor, options: CutOptions) -> Mapping[str, Any] | None:
    if network.recipe is None or options.leaves:
        return None
    return {
        **network.recipe,
        "shape": list(example.shape),
        "dtype": str(example.dtype).removeprefix("torch."),
        "granularity": options.granularity,
        "max_tensors": options.max_tensors,
    }
