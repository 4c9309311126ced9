"""How wide layers shall be: multiples that kernels like, and one factor for all layers that meets a budget.

    uniform = uniform_widths(model, example, 1_000_000)
    remove(model, example, uniform.channels)                  # every layer is `uniform.factor` as wide

Scaling all widths alike is the baseline that every choice of single layers has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels, Group
from edgeward.prune.cutting import parameters_without

__all__ = ["Uniform", "rounded", "surplus", "uniform_widths"]

_HALVINGS = 20


@dataclass(frozen=True)
class Uniform:
    """A share of each width that stays, the parameters that leaves, and what `remove` takes to get there."""

    factor: float
    parameters: int
    channels: Mapping[str, Sequence[int]]


def rounded(width: float, multiple: int = 8, floor: int = 4) -> int:
    """The multiple nearest to a width, at least `floor`; below two multiples, the nearest whole number.

    Narrow layers are left alone because there a multiple is a large share of them. Raises PruneError for a width
    below 0, and for a multiple or floor below 1.
    """
    if not width >= 0 or multiple < 1 or floor < 1:
        raise PruneError(f"width {width}, multiple {multiple}, floor {floor}: widths start at 0, the others at 1")
    whole = int(width + 0.5) if width < 2 * multiple else int(width / multiple + 0.5) * multiple
    return max(whole, floor)


def surplus(group: Group, factor: float, multiple: int = 1, floor: int = 1) -> tuple[int, ...]:
    """The units to remove so that `factor` of a group stays, the same share of each kind of unit; the last ones go."""
    return tuple(
        unit for kind in group.kinds for unit in kind[min(rounded(len(kind) * factor, multiple, floor), len(kind)) :]
    )


def uniform_widths(
    model: nn.Module, example: Tensor, budget: int, found: Channels | None = None, multiple: int = 1, floor: int = 1
) -> Uniform:
    """The widest network of at most `budget` parameters whose widths are all the same share of the dense ones.

    found: the groups of this very model, when they are known already. Widths are rounded (see `rounded`), heads whole.
    Raises PruneError when even the narrowest network is larger than the budget.
    """
    channels = Channels.of(model, example) if found is None else found
    groups = [group for group in channels.groups if group.prunable]

    def count(factor: float) -> int:
        gone = (slot for one in groups for unit in surplus(one, factor, multiple, floor) for slot in one.units[unit])
        return parameters_without(model, gone)

    if count(0.0) > budget:
        raise PruneError(
            f"no widths reach {budget} parameters: {type(model).__name__} keeps {count(0.0)} with {floor} channels in "
            "every group; raise the budget"
        )
    low, high = (1.0, 1.0) if count(1.0) <= budget else (0.0, 1.0)
    while high - low > 2**-_HALVINGS:
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    wanted: dict[str, list[int]] = {}
    for group in groups:
        for layer, outputs in group.channels(surplus(group, low, multiple, floor)).items():
            wanted.setdefault(layer, []).extend(outputs)
    return Uniform(low, count(low), wanted)
