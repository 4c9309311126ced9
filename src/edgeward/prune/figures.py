"""What can be counted of a network: parameters, multiply-accumulates, bytes, and the memory one inference needs.

figures_of(model, torch.zeros(1, 3, 224, 224)).macs
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgeward.graph.chain import cut

__all__ = ["Figures", "figures_of"]


@dataclass(frozen=True)
class Figures:
    """parameters: trainable numbers. macs: of the example. size: bytes of parameters and buffers.

    memory: `size` and the most bytes of activations alive at once, as torch.fx orders the operations.
    blocks: by block name, its parameters and multiply-accumulates.
    """

    parameters: int
    macs: int
    size: int
    memory: int
    blocks: tuple[tuple[str, int, int], ...] = ()

    def __getitem__(self, metric: str) -> float:
        """The figure that a `Goal` calls by this name."""
        return float({"params": self.parameters, "macs": self.macs, "size": self.size, "memory": self.memory}[metric])


def figures_of(model: nn.Module, example: Tensor) -> Figures:
    """Counts for one example (its batch counts, too). Raises TraceError when the network cannot be traced."""
    costs = cut(model, example).costs
    parameters = sum(one.numel() for one in model.parameters())
    size = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
    return Figures(
        parameters,
        sum(cost.macs for cost in costs),
        size,
        size + max(cost.peak_bytes for cost in costs),
        tuple((cost.name, cost.parameters, cost.macs) for cost in costs),
    )
