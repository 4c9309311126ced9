"""One run of label setting over a problem.

    search = Search(problem, top=5, effort=Effort())
    [search.trace(label) for label in search.ranked(5)]

A label is a way of running blocks 0 to k: the last device, a key of what it has used, its placement (which device ran
what), and its figures. One block is one vectorised extension of all labels, by every device and packing of the hop.
A label is dropped
 * when no completion can keep a cap: a backward pass bounds what is still to come of every measure, or
 * when labels of `top` other placements with the same device and key, or one of the same placement, have no figure
   larger: each of them completes to a plan no worse.
So plans that differ only in how hops are packed are one plan, and only its best packing is kept where costs allow to
tell. A capped figure so low that the cap cannot be reached any more is raised to that level, so that it no longer sets
labels apart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from edgeward.errors import PlanError
from edgeward.plan.arrays import Bools, Floats, Ints, Way
from edgeward.plan.dominance import undominated
from edgeward.plan.options import Moves
from edgeward.plan.problem import Problem

__all__ = ["MAX_LABELS", "Effort", "Search", "TooManyLabelsError"]

MAX_LABELS = 1_000_000
"""Most labels kept after one block."""

ROUNDING = 1e-11
"""What a sum of figures may be off, as a share of their size."""


class TooManyLabelsError(PlanError):
    """Exact search would keep more labels than allowed."""


@dataclass(frozen=True)
class Effort:
    """width: labels kept per device and key, None for all that matter. ceiling: what a plan may cost at most."""

    width: int | None = None
    ceiling: float = np.inf
    max_labels: int = MAX_LABELS


@dataclass(frozen=True)
class _Labels:
    """L labels. device, key, place, parent, option: [L]. figures: [L, c], smaller is better in every column.

    place: a number of its own for every placement, where labels can share one. option: the packing of the hop to it.
    """

    device: Ints
    key: Ints
    place: Ints
    parent: Ints
    option: Ints
    figures: Floats

    def __getitem__(self, chosen: Bools | Ints) -> _Labels:
        return _Labels(*(getattr(self, one.name)[chosen] for one in fields(self)))


class Search:
    """One run over a problem.

    Columns of a label's figures: the measures; a pipeline's bottleneck, open stage and, with packings, all that the
    source has to do; weights and largest activations on each device of limited memory. Of the result `figures`
    [P, goals (+ 1)]: the goals, a pipeline's bottleneck. Raises TooManyLabelsError.
    """

    def __init__(self, problem: Problem, top: int, effort: Effort) -> None:
        self.problem, self.top, self.effort = problem, top, effort
        self.count, self.size = problem.allowed.shape
        self.limits = problem.limits
        if not problem.pipeline:
            self.limits[: len(problem.goals)] = effort.ceiling
        self.measures = len(self.limits)
        self.pipes = (2 + problem.packed) * problem.pipeline
        self.shared = problem.packed and top > 1
        self.replicas = np.array([device.count for device in problem.costs.devices], np.float64)
        self.bits, self.visits, self.split = self._keys()
        self.least, self.most = self._bounds()
        self.layers: list[tuple[Ints, Ints, Ints]] = []
        labels = self._reduce(self._enter(), 0)
        for block in range(1, self.count):
            self.layers.append((labels.device, labels.parent, labels.option))
            labels = self._reduce(self._extend(block, labels), block)
        self.layers.append((labels.device, labels.parent, labels.option))
        self.final, self.figures = self._leave(labels)

    def ranked(self, top: int) -> list[int]:
        """The cheapest complete plans, no two of the same placement."""
        order = np.lexsort(self.figures.T)
        first = np.unique(self.final.place[order], return_index=True)[1]
        return [int(label) for label in order[np.sort(first)[:top]]]

    def trace(self, label: int) -> Way:
        """The devices of the blocks of a complete plan, and how its hops are packed."""
        path, packings = np.empty(self.count, np.int64), np.zeros(self.count + 1, np.int64)
        packings[-1], label = self.final.option[label], int(self.final.parent[label])
        for block in range(self.count - 1, -1, -1):
            device, parent, option = self.layers[block]
            path[block], packings[block], label = device[label], option[label], int(parent[label])
        return Way(path, packings)

    def _keys(self) -> tuple[Ints, Ints, int]:
        """What a block on a device adds to the key: needs met and visits; and the bit of having used two devices."""
        problem = self.problem
        bits = np.zeros(self.size, np.int64)
        for number, need in enumerate(problem.needs):
            bits |= np.where(need, 1 << number, 0)
        split = len(problem.needs)
        visits = np.zeros(self.size, np.int64)
        if problem.once or problem.spread > 2:
            used = np.flatnonzero(problem.allowed.any(axis=0))
            if split + 1 + len(used) > 62:
                raise PlanError(
                    f"{len(used)} devices are too many to tell which were used (at most {61 - split}); "
                    "leave some out with 'avoid'"
                )
            visits[used] = np.int64(1) << (split + 1 + np.arange(len(used)))
        return bits | visits, visits, 1 << split if problem.spread == 2 else 0

    def _bounds(self) -> tuple[Floats, Floats]:
        """[n, m, R] the least and the most of each measure that can still follow; least is inf at dead ends."""
        least = np.empty((self.count, self.measures, self.size))
        most = np.empty_like(least)
        moves = self.problem.leave()
        least[-1], most[-1] = moves.least()[..., 0], moves.most()[..., 0]
        for block in range(self.count - 1, 0, -1):
            moves = self.problem.step(block)
            least[block - 1] = (moves.least() + least[block][:, None, :]).min(axis=2)
            most[block - 1] = (moves.most() + most[block][:, None, :]).max(axis=2)
        return least, most

    def _pruned(self, moves: Moves, boundary: int, before: slice, device: slice) -> Moves:
        """The packings at a boundary that can be part of a best plan."""
        if not self.problem.pipeline:
            return moves.pruned()
        options, at = self.problem.costs.options, (moves.option, boundary)
        pack, unpack = options.pack[at][:, before, None], options.unpack[at][:, None, device]
        return moves.pruned(pack, unpack, self.problem.moved[at][:, None, None])

    def _enter(self) -> _Labels:
        source = self.problem.costs.source
        moves = self._pruned(self.problem.enter(), 0, slice(source, source + 1), slice(None))
        choice, device = np.nonzero(moves.ok[:, 0])
        figures = np.zeros((len(device), self.measures + self.pipes + 2 * len(self.problem.fits)))
        figures[:, : self.measures] = moves.added[choice, :, 0, device]
        before, option = np.full(len(device), source), moves.option[choice]
        if self.problem.pipeline:
            self._pipe(figures, 0, before, device, option)
        self._fill(figures, device, 0)
        return _Labels(device, self.bits[device], device, np.full(len(device), -1), option, figures)

    def _extend(self, block: int, labels: _Labels) -> _Labels:
        """Every label with block `block` on every device that it may run on, by every packing of the hop."""
        problem, measures = self.problem, self.measures
        moves = self._pruned(problem.step(block), block, slice(None), slice(None))
        grid = moves.ok[:, labels.device]
        if problem.once:
            here = labels.device[:, None] == np.arange(self.size)
            grid &= ((labels.key[:, None] & self.visits) == 0) | here
        choice, parent, device = np.nonzero(grid)
        before, option = labels.device[parent], moves.option[choice]
        figures = labels.figures[parent]
        figures[:, :measures] += moves.added[choice, :, before, device]
        if problem.pipeline:
            self._pipe(figures, block, before, device, option)
        self._fill(figures, device, block)
        key = labels.key[parent] | self.bits[device] | np.where(before != device, self.split, 0)
        place = np.arange(len(device))
        if self.shared:
            place = np.unique(labels.place[parent] * self.size + device, return_inverse=True)[1]
        return _Labels(device, key, place, parent, option, figures)

    def _pipe(self, figures: Floats, block: int, before: Ints, device: Ints, option: Ints) -> None:
        """A stage that is left, and the hop from it, enter the bottleneck; a new one opens."""
        costs, closed, opened = self.problem.costs, self.measures, self.measures + 1
        left, (pack, unpack) = before != device, self._work(block, before, device, option)
        ended = np.maximum(figures[:, opened] + pack, self._busy(block, before, device, option))
        figures[:, closed] = np.where(left, np.maximum(figures[:, closed], ended), figures[:, closed])
        begun, more = (part[block, device] / self.replicas[device] for part in (costs.start, costs.inner))
        figures[:, opened] = np.where(left, begun + unpack, figures[:, opened] + more)
        if self.problem.packed:
            figures[:, opened + 1] += np.where(before == costs.source, pack, 0.0)
            figures[:, opened + 1] += np.where(device == costs.source, np.where(left, begun + unpack, more), 0.0)
            if block and not self.problem.returns:  # the source has done all it has to: one figure less to compare
                done = left & (before == costs.source)
                figures[done, closed] = figures[done][:, [closed, opened + 1]].max(axis=1)
                figures[done, opened + 1] = 0.0

    def _work(self, boundary: int, before: Ints, device: Ints, option: Ints) -> tuple[Floats, Floats]:
        """Seconds per inference that packing and unpacking hops occupies their ends, counting replicas."""
        options = self.problem.costs.options
        pack, unpack = options.pack[option, boundary, before], options.unpack[option, boundary, device]
        return pack / self.replicas[before], unpack / self.replicas[device]

    def _busy(self, boundary: int, before: Ints, device: Ints, option: Ints) -> Floats:
        """Seconds that hops occupy their link."""
        links = self.problem.costs.links
        wire = links.seconds_per_byte[before, device] * self.problem.moved[option, boundary]
        return np.asarray(links.overhead[before, device] + wire)

    def _fill(self, figures: Floats, device: Ints, block: int) -> None:
        """Weights and largest activations on devices of limited memory; one that was left for good is forgotten."""
        column, costs = figures.shape[1] - 2 * len(self.problem.fits), self.problem.costs
        for fit in self.problem.fits:
            here = device == fit.device
            if self.problem.once:
                figures[~here, column : column + 2] = 0.0
            figures[here, column] += costs.parameters[block]
            figures[here, column + 1] = np.maximum(figures[here, column + 1], costs.peak[block])
            column += 2

    def _reduce(self, labels: _Labels, block: int) -> _Labels:
        """The labels that can still complete to one of the plans asked for, in canonical order."""
        problem, figures = self.problem, labels.figures
        least = self.least[block][:, labels.device].T
        possible = ((figures[:, : self.measures] + least <= self.limits) & np.isfinite(least)).all(axis=1)
        column = figures.shape[1] - 2 * len(problem.fits)
        if problem.pipeline:
            possible &= (figures[:, self.measures : self.measures + self.pipes] <= self.effort.ceiling).all(axis=1)
        for fit in problem.fits:
            possible &= figures[:, column] + figures[:, column + 1] <= fit.limit
            column += 2
        labels = labels[possible]
        goals = len(problem.goals)
        if self.measures > goals:
            limit, most = self.limits[goals:, None], self.most[block][goals:, labels.device]
            slack = limit - most - ROUNDING * (np.abs(limit) + np.abs(most))
            capped = labels.figures[:, goals : self.measures]
            np.maximum(capped, slack.T, out=capped)
        first = self.measures if problem.pipeline else 0
        order = np.lexsort((*np.roll(labels.figures.T, -first, axis=0)[::-1], labels.key, labels.device))
        labels = labels[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (labels.device[1:] != labels.device[:-1]) | (labels.key[1:] != labels.key[:-1])
        state = np.cumsum(new) - 1
        if self.effort.width is not None:
            return labels[np.arange(len(state)) - np.flatnonzero(new)[state] < self.effort.width]
        labels = labels[undominated(state, labels.figures, self.top, labels.place if self.shared else None)]
        if len(labels.device) > self.effort.max_labels:
            raise TooManyLabelsError(
                f"after block {block} more than {self.effort.max_labels} ways of running the model are incomparable; "
                "ask for fewer caps or criteria, or leave devices out with 'avoid'"
            )
        return labels

    def _leave(self, labels: _Labels) -> tuple[_Labels, Floats]:
        """The complete plans, whose parents are labels of the last layer, and their figures."""
        problem, goals, source = self.problem, len(self.problem.goals), self.problem.costs.source
        moves = self._pruned(problem.leave(), self.count, slice(None), slice(source, source + 1))
        choice, parent = np.nonzero(moves.ok[:, labels.device, 0])
        ended, option = labels[parent], moves.option[choice]
        figures = ended.figures[:, : self.measures] + moves.added[choice, :, ended.device, 0]
        wanted = (1 << len(problem.needs)) - 1
        complete = (figures <= self.limits).all(axis=1) & (ended.key & wanted == wanted)
        if problem.spread == 2:
            complete &= ended.key & self.split > 0
        elif problem.spread > 2:
            complete &= np.bitwise_count(ended.key >> (len(problem.needs) + 1)) >= problem.spread
        figures = figures[:, :goals]
        if problem.pipeline:
            figures = np.column_stack([figures, self._bottleneck(ended, option)])
        final = _Labels(ended.device, ended.key, ended.place, parent, option, figures)
        return final[complete], figures[complete]

    def _bottleneck(self, ended: _Labels, option: Ints) -> Floats:
        """What the busiest device or link of complete plans has to do per inference."""
        busy = ended.figures[:, self.measures : self.measures + self.pipes].copy()
        if self.problem.returns:
            target = np.full(len(option), self.problem.costs.source)
            away = ended.device != target
            pack, unpack = self._work(self.count, ended.device, target, option)
            wire = self._busy(self.count, ended.device, target, option)
            busy[:, 0] = np.where(away, np.maximum(busy[:, 0], wire), busy[:, 0])
            busy[:, 1] += np.where(away, pack, 0.0)
            busy[:, 2:] += np.where(away, unpack, 0.0)[:, None]
        return np.asarray(busy.max(axis=1))
