"""A masked network made smaller and dense, with the same outputs.

    converted = convert(model, torch.zeros(1, 3, 224, 224))
    converted.module(pictures)                 # as the masked network, to rounding
    converted.difference                       # how far apart the two were measured, and from which layer on
    converted.edits                            # rebuilds the structure from the dense network: zoo.pruned

A filter of zeros is not an output of zeros: behind bias, batch norm and activation it is a constant that its readers
add. Deleting filters as in Eccles et al., "DNNShifter: An efficient DNN pruning system for edge computing", Future
Generation Computer Systems 2024, section 3.2, drops these constants. Here they go into the readers' biases, or, where
zero padding makes them differ at the border, into the kernel of one constant channel that stays. Channels that nobody
reads go as well, with what only they read.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.graph.trace import Example, trace
from edgeward.prune.carriers import choose
from edgeward.prune.channels import Channels
from edgeward.prune.compare import Difference, compare
from edgeward.prune.compensate import compensate
from edgeward.prune.flow import Flow, Needs
from edgeward.prune.follow import follow
from edgeward.prune.remove import remove
from edgeward.zoo.pruned import Edits

__all__ = ["Converted", "convert"]


@dataclass(frozen=True)
class Converted:
    """A smaller network in eval mode, and how it differs from the one given.

    difference: of the outputs, measured. removed: by layer, how many of its output channels went.
    notes: what stayed although its filters are zero, and why.
    """

    module: nn.Module
    edits: Edits
    difference: Difference
    removed: Mapping[str, int]
    notes: tuple[str, ...]


def convert(
    model: nn.Module, example: Tensor, *, inputs: Sequence[Tensor] = (), naive: bool = False, tolerance: float = 1e-5
) -> Converted:
    """The smaller equal of a network whose mask is applied; the network given stays as it is.

    example: one input, of which the network's shapes are taken. inputs: more to compare the two networks on, beside the
    example and a random one. naive: delete zero filters and drop their constants, for comparison. tolerance: the
    largest difference that counts as equal, relative to outputs beyond 1.

    Where nothing can go the result is a copy, equal bit for bit. Raises PruneError for weights that are not finite or
    still masked by a hook, TraceError when the network cannot be traced.
    """
    _check(model)
    dense = copy.deepcopy(model).eval()
    traced = trace(dense, Example((example,)))
    channels = Channels.of(dense, example)
    flow = follow(dense, traced, example, channels)
    carriers = {} if naive else choose(flow)
    needs = flow.needs(carriers)
    kept = ~_without_filters(flow) if naive else flow.kept(needs)
    kept, notes = _least(flow, kept)
    gone = {name: torch.nonzero(~kept[layer.outputs]).flatten().tolist() for name, layer in flow.layers.items()}
    gone = {name: outputs for name, outputs in gone.items() if outputs}
    if not gone:
        return Converted(dense, Edits(), compare(model, dense, (example, *inputs), {}, tolerance), {}, notes)
    added = {} if naive else _compensate(flow, needs, carriers, kept)
    smaller = remove(dense, example, gone, channels)
    sources = {} if naive else _comparable(flow, needs, kept)
    return Converted(
        smaller.module,
        Edits(added).then(smaller.edits),
        compare(model, smaller.module, (example, *inputs), sources, tolerance),
        {name: len(outputs) for name, outputs in gone.items()},
        notes,
    )


def _check(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "weight_orig") or hasattr(module, "weight_mask"):
            raise PruneError(f"{name} is still masked by a hook; call torch.nn.utils.prune.remove on it first")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not all(bool(end.isfinite()) for end in tensor.detach().aminmax()):
            raise PruneError(f"{name} holds values that are not finite; train again, or load weights that are")


def _without_filters(flow: Flow) -> Tensor:
    """Labels whose channels all come from filters of zeros, bool [labels]."""
    made, alive = torch.zeros_like(flow.pinned), flow.pinned.clone()
    for layer in flow.layers.values():
        if not layer.by_channel:
            made[layer.outputs] = True
            alive[layer.outputs[layer.reads.any.any(-1).flatten()]] = True
    return made & ~alive


def _least(flow: Flow, kept: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """With one channel of every layer that would be left with none, and notes that say so."""
    kept, notes = kept.clone(), []
    for layer in flow.layers.values():
        if not bool(kept[layer.outputs].any()):
            kept[layer.outputs[0]] = True
            notes.append(f"{layer.name}: nothing of it is needed; one channel stays")
    return kept, tuple(notes)


def _compensate(flow: Flow, needs: Needs, carriers: Mapping[str, int], kept: Tensor) -> dict[str, tuple[int, ...]]:
    """Put constants where they are read; the shapes of biases that had to be made for it."""
    added = {}
    for name, layer in flow.layers.items():
        bare = layer.module.bias is None
        compensate(layer, needs, carriers.get(name), kept)
        if bare and layer.module.bias is not None:
            added[f"{name}.bias"] = tuple(layer.module.bias.shape)
    return added


def _comparable(flow: Flow, needs: Needs, kept: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer, which of its old outputs equal which of its new ones: int64 each."""
    found = {}
    for name, layer in flow.layers.items():
        stays = kept[layer.outputs]
        both = stays & needs.rows(layer)
        found[name] = (torch.nonzero(both).flatten(), (stays.cumsum(0) - 1)[both])
    return found
