"""Taking channels out of a network, everywhere at once: a smaller dense network with the same weights.

small = remove(model, torch.zeros(1, 3, 224, 224), {"layer1.0.conv1": [3, 17]})
small.module(pictures)                                # channels 3 and 17 are gone, and what was bound to them
small.edits                                           # rebuilds the structure from the dense network: zoo.pruned
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.cutting import Removed, without
from edgeward.prune.units import Slot

__all__ = ["Removed", "remove"]


def remove(
    model: nn.Module, example: Tensor, channels: Mapping[str, Sequence[int]], found: Channels | None = None
) -> Removed:
    """A copy of `model` without these output channels, and without all that is bound to them.

    channels: by layer, the output channels to remove; any layer of a group names the whole unit. found: the groups
    of this very model, when they are known already. What consumers added for a removed channel is lost; where their
    weights for it are zero, the outputs stay the same. Raises PruneError for a layer or channel that is not there,
    must stay, or would leave a layer with nothing.
    """
    groups = Channels.of(model, example) if found is None else found
    gone: dict[Slot, None] = {}  # in order, so that the same removal is described the same way
    for layer, outputs in channels.items():
        group, units = groups.units_of(layer, outputs)
        if units and group.fixed:
            raise PruneError(f"no channel of {layer} can be removed: {group.fixed}")
        for unit in units:
            gone.update(dict.fromkeys(group.units[unit]))
    return without(model, gone)
