"""A smaller dense network before any training: layers that global pruning finds redundant lose filters (Reconvene).

    small = reconvene(model, torch.zeros(1, 3, 32, 32), ReconveneOptions(keep=0.1))
    small.module, small.widths, small.notes
    small = for_target(model, example, lambda net: parameters(net) <= 1_000_000)

Reconvene, CCGrid 2024, arXiv 2404.16877: rank all weights at initialisation, compare each layer's sparsity with the
average, structurally prune and re-initialise the resilient ones. Thresholds, ratios and the filters' order are not
published; they are options here. Widths by a layer's own share leave bottlenecks: the last layer of a network, the
largest and so the sparsest, would pass fewer channels to a dense classifier than there are classes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError, nearest
from edgeward.prune.channels import Channels
from edgeward.prune.criteria import Criterion, Magnitude
from edgeward.prune.data import Batch
from edgeward.prune.initialisers import INITIALISERS, initialise_, initialiser_of
from edgeward.prune.mask import Mask
from edgeward.prune.rectify import ORDERS, RATIOS, changed, lost, rectified, refusal, schedule, worth
from edgeward.prune.schedule import check_keep
from edgeward.prune.scope import select
from edgeward.prune.sensitivity import READINGS, Sparsities, convolutions, resilient
from edgeward.zoo.pruned import Edits

__all__ = ["Decision", "ReconveneOptions", "Reconvened", "decide", "for_target", "reconvene"]

_CHOICES = {
    "reading": READINGS,
    "ratio": RATIOS,
    "order": ORDERS,
    "reinitialise": ("changed", "all", "none"),
    "initialiser": ("detect", *INITIALISERS),
}
_SEARCH_STEPS = 10


@dataclass(frozen=True)
class ReconveneOptions:
    """How to make a network smaller.

    keep: share of the ranked weights kept, 1 - the pruning degree. criterion: what ranks them. reading: the average
    that a layer is compared with. margin: by how much it must be sparser to be resilient. ratio: of its filters, a
    resilient layer keeps the geometric mean of the shares of weights left in it and in its readers, of which those not
    ranked keep all ("ends"), its own share alone ("layer"), or the average of all layers ("mean"). order: filters with
    the lowest L1 norm of unpruned weights go first, the fewest unpruned weights ("survivors"), or any. floor,
    multiple: of widths; see `widths.rounded`. coupled: narrow also channels that several layers produce together
    (residual additions, depthwise convolutions). reinitialise: layers whose inputs or outputs are fewer, all, or none.
    initialiser: how; "detect" draws as the weights were drawn. names: weights ranked, those of `convolutions` by
    default. Raises PruneError.
    """

    keep: float = 0.1
    criterion: Criterion = field(default_factory=Magnitude)
    reading: str = "layer-mean"
    margin: float = 0.0
    ratio: str = "ends"
    order: str = "l1"
    floor: int = 4
    multiple: int = 1
    coupled: bool = False
    reinitialise: str = "changed"
    initialiser: str = "detect"
    seed: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_keep(self.keep)
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise PruneError(f"there is no {name} {value!r}; {nearest(value, choices)}")
        for name, low, high in (("margin", -1, 1), ("floor", 1, 1 << 16), ("multiple", 1, 1 << 16), ("seed", 0, 2**31)):
            if not low <= (value := getattr(self, name)) <= high:
                raise PruneError(f"{name} is {value}; choose from {low} to {high}")


@dataclass(frozen=True)
class Decision:
    """widths: units left, by group that gets narrower. sparsities: why. notes: what was not done, and oddities."""

    widths: Mapping[str, int]
    sparsities: Sparsities
    resilient: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sensitive(self) -> tuple[str, ...]:
        """Layers ranked that are not resilient."""
        return tuple(name for name in self.sparsities.shares if name not in self.resilient)


@dataclass(frozen=True)
class Reconvened:
    """The smaller network, to be trained once.

    edits: rebuild its structure. widths: outputs of each ranked layer. keep, initialiser: as used. seconds: to make it.
    """

    module: nn.Module
    edits: Edits
    widths: Mapping[str, int]
    decision: Decision
    keep: float
    initialiser: str
    seconds: float

    @property
    def resilient(self) -> tuple[str, ...]:
        """Layers sparser than the average."""
        return self.decision.resilient

    @property
    def sensitive(self) -> tuple[str, ...]:
        """The other layers that were ranked."""
        return self.decision.sensitive

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not done and why, and signs of layer collapse."""
        return self.decision.notes


def reconvene(
    model: nn.Module, example: Tensor, options: ReconveneOptions | None = None, batches: Iterable[Batch] = ()
) -> Reconvened:
    """A smaller copy of an untrained network.

    example: one input. batches: (inputs, labels), for criteria that need data. Raises PruneError when nothing can be
    narrowed, the network cannot be traced, data is missing, or scores are not finite.
    """
    options = options or ReconveneOptions()
    started = time.perf_counter()
    return _Ready(model, example, options, batches).at(options.keep, started)


def for_target(
    model: nn.Module,
    example: Tensor,
    fits: Callable[[nn.Module], bool],
    options: ReconveneOptions | None = None,
    batches: Iterable[Batch] = (),
) -> Reconvened:
    """The largest network that fits, by halving the pruning degree; `options.keep` does not matter.

    fits: told of each candidate; takes parameters, bytes or a measured latency. A network that fits as it is comes
    back as it is, copied. Sizes fall with the degree but for small steps where a layer stops being resilient, so the
    result is the largest of those tried. Raises PruneError when even the smallest does not fit, and as `reconvene`.
    """
    started = time.perf_counter()
    ready = _Ready(model, example, options or ReconveneOptions(), batches)
    if fits(model):
        return ready.whole(started)
    low, high = ready.least, 1.0
    best = ready.at(low, started)
    if not fits(best.module):
        raise PruneError(_too_large(best.module, ready.options))
    for _ in range(_SEARCH_STEPS):
        # Halved on the logarithm's scale: most of the way lies at small shares.
        middle = math.sqrt(low * high)
        candidate = ready.at(middle, started)
        if fits(candidate.module):
            low = middle
            best = max(best, candidate, key=lambda one: _parameters(one.module))
        else:
            high = middle
    return replace(best, seconds=time.perf_counter() - started)


def decide(model: nn.Module, channels: Channels, mask: Mask, options: ReconveneOptions) -> Decision:
    """Which groups of channels shall be how wide, given what pruning left of each layer.

    A coupled group goes by the share pruned of all its layers. Raises PruneError when no group may be narrowed.
    """
    found = Sparsities.of(mask)
    bar = found.average(options.reading)
    producers = {group.name: [layer for layer in group.producers if layer in found.shares] for group in channels.groups}
    ranked = [group for group in channels.groups if producers[group.name]]
    refused = {group.name: why for group in ranked if (why := refusal(model, group, options.coupled))}
    shares = {group.name: found.of_group(producers[group.name]) for group in ranked}
    narrow = [group for group in ranked if shares[group.name] >= bar + options.margin - 1e-9]
    told = [f"{one.name} stays {one.size} wide: {refused[one.name]}" for one in narrow if one.name in refused]
    if len(refused) == len(ranked):
        why = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise PruneError(f"no layer can be narrowed on its own; {why or 'none that is ranked has channels of its own'}")
    free = [one for one in narrow if one.name not in refused]
    sizes = {one.name: one.size for one in free}
    removed = {one.name: lost(options.ratio, shares[one.name], found.of_readers(one.consumers), bar) for one in free}
    widths = schedule(sizes, removed, options.floor, options.multiple)
    return Decision(
        {name: width for name, width in widths.items() if width < sizes[name]},
        found,
        resilient(found, options.reading, options.margin),
        (*told, *_collapses(mask)),
    )


class _Ready:
    """What does not depend on the pruning degree: channels and scores, found once."""

    def __init__(self, model: nn.Module, example: Tensor, options: ReconveneOptions, batches: Iterable[Batch]) -> None:
        self.model, self.example, self.options = model, example, options
        self.alive = Mask.ones(model, options.names or convolutions(model))
        modules = dict(model.named_modules())
        for name in self.alive.tensors:
            layer = modules[name.rpartition(".")[0]]
            if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) or not name.endswith("weight"):
                raise PruneError(
                    f"{name} is of a {type(layer).__name__}; rank weights of convolutions and linear layers"
                )
        given = list(batches)
        if not given and options.criterion.passes:
            raise PruneError(f"{options.criterion.name} scores weights on data; give batches of inputs and labels")
        # Criteria without data only look at the shape of an input.
        batch = (example, torch.zeros(len(example), dtype=torch.int64, device=example.device))
        self.scores = options.criterion.score(model, given or [batch], self.alive)
        self.channels = Channels.of(model, example)
        weights = {name: dict(model.named_parameters())[name] for name in self.alive.tensors}
        self.drawn = initialiser_of(weights)
        self.least = max(2 * len(self.alive.tensors) / self.alive.total, 1e-4)

    def at(self, keep: float, started: float) -> Reconvened:
        """The network for one pruning degree."""
        options = self.options
        mask = select(self.scores, self.alive, keep, floor=1)
        decision = decide(self.model, self.channels, mask, options)
        values = worth(self.model, mask, options.order, options.seed)
        small = rectified(self.model, self.example, self.channels, decision.widths, values)
        initialiser = self.drawn if options.initialiser == "detect" else options.initialiser
        notes = list(decision.notes)
        if not initialiser and options.reinitialise != "none":
            initialiser = "fan-in"
            notes.append("the weights were not drawn by a known initialiser; new ones are normal by fan-in")
        if self.drawn == "default":
            notes.append(
                "torch's uniform weights: layers of many inputs lose all their weights at once; "
                "draw them with initialise_(model, 'fan-in', seed) first"
            )
        if options.reinitialise != "none":
            layers = changed(small) if options.reinitialise == "changed" else None
            initialise_(small.module, initialiser, options.seed, layers)
        decision = replace(decision, notes=tuple(notes))
        return self._made(small.module, small.edits, decision, (keep, initialiser, started))

    def whole(self, started: float) -> Reconvened:
        """The network as it is."""
        shares = Sparsities.of(self.alive)
        decision = Decision({}, shares, (), ("the network fits as it is",))
        return self._made(copy.deepcopy(self.model), Edits(), decision, (1.0, self.drawn, started))

    def _made(self, module: nn.Module, edits: Edits, decision: Decision, how: tuple[float, str, float]) -> Reconvened:
        parameters = dict(module.named_parameters(remove_duplicate=False))
        widths = {name.removesuffix(".weight"): len(parameters[name]) for name in self.alive.tensors}
        keep, initialiser, started = how
        return Reconvened(module, edits, widths, decision, keep, initialiser, time.perf_counter() - started)


def _collapses(mask: Mask) -> list[str]:
    """Layers that only the floor of one weight kept from vanishing."""
    left = {name: int(kept.sum()) for name, kept in mask.tensors.items()}
    return [
        f"nothing would be left of {name.removesuffix('.weight')}: layer collapse; its width is the floor"
        for name, count in left.items()
        if count <= 1 < mask.tensors[name].numel()
    ]


def _parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def _too_large(module: nn.Module, options: ReconveneOptions) -> str:
    sizes = {name: one.numel() for name, one in module.named_parameters() if one.dim() > 1}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    told = ", ".join(f"{name} ({sizes[name]})" for name in largest)
    return (
        f"no pruning degree meets the target: the smallest network has {_parameters(module)} parameters, most of them "
        f"in {told}; lower the floor of {options.floor}, allow coupled groups, or relax the target"
    )
