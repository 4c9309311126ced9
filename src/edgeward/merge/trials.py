"""What to try next: the search for shared layers as a pure state machine.

    trial = begin(groups, 0)
    trial = following(groups, trial, verdict)          # None when nothing is left

All layers of the heaviest group first. If some models fail, those that met try without the others; of the failed the
better half tries again if that is worth more than the next group (Padmanabhan et al., "Gemel", NSDI 2023, with every
confirmed set gated). An attempt costs about the same however light its layers are, and real networks have many light
ones: after each success the next trial takes twice as many groups at once, after a failure half of them, which bisects
what failed. Each attempt has fewer layers than the failed one it follows from, so it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeward.merge.groups import Group, Instance
from edgeward.merge.sharing import Sharing, closure

__all__ = ["Trial", "Verdict", "begin", "following", "good", "worthwhile"]


@dataclass(frozen=True)
class Trial:
    """Layers `trying` to share with one another and with `copy`, which do so already; `left` failed before.

    group: its number among the groups. left: the closest to its target first. width: groups tried at once from that one
    on, each whole if more than one. failed: the group behind those that failed together, 0 if none did.
    """

    group: int
    trying: tuple[Instance, ...]
    copy: tuple[Instance, ...] = ()
    left: tuple[Instance, ...] = ()
    width: int = 1
    failed: int = 0

    @property
    def enough(self) -> int:
        """The fewest layers that make sharing worth anything."""
        return 1 if self.copy else 2

    @property
    def instances(self) -> frozenset[Instance]:
        """All that share if it succeeds."""
        return frozenset(self.trying + self.copy)

    def of(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """What it would share: of each of its groups those layers that take part."""
        return tuple(one.of(self.instances) for one in groups[self.group : self.group + self.width])


@dataclass(frozen=True)
class Verdict:
    """What came of a trial. good: layers that may go on, see `good`.

    closeness: accuracy as a share of the target, by model.
    """

    passed: bool
    good: frozenset[Instance]
    closeness: Mapping[str, float]


def begin(groups: Sequence[Group], index: int, width: int = 1, failed: int = 0) -> Trial | None:
    """The first trial of a group, with those after it if it is to be wider; None after the last."""
    together = groups[index : index + width]
    trying = tuple(one for group in together for one in group.instances)
    return Trial(index, trying, width=len(together), failed=failed) if together else None


def good(trial: Trial, confirmed: Sharing, failed: frozenset[str]) -> frozenset[Instance]:
    """Layers of a trial that may go on: of models that have not failed, nor drag along one outside that has.

    A model outside the trial is changed through those of the trial that it shares with, so these are out with it. When
    one fails that shares the copy already, joining it is out for all.
    """
    own = {one.model for one in trial.trying}
    if failed & {one.model for one in trial.copy}:
        return frozenset()
    out = failed | closure(confirmed, failed - own) if failed - own else failed
    return frozenset(one for one in trial.trying if one.model not in out)


def worthwhile(trial: Trial, confirmed: Sharing, failed: frozenset[str]) -> bool:
    """Whether a trial in which these models have failed can still come to something."""
    if trial.width > 1:
        return not failed
    return len(good(trial, confirmed, failed)) >= trial.enough


def following(groups: Sequence[Group], trial: Trial, verdict: Verdict) -> Trial | None:
    """The next trial; None when nothing is left to try."""

    def closest_first(instances: Sequence[Instance]) -> tuple[Instance, ...]:
        return tuple(sorted(instances, key=lambda one: (-verdict.closeness.get(one.model, 0.0), one)))

    if trial.width > 1 and not verdict.passed:
        return begin(groups, trial.group, trial.width // 2, trial.group + trial.width)
    following_group = _beyond(groups, trial, verdict.passed)
    if trial.width > 1:
        return following_group
    if verdict.passed:
        copy, candidates = trial.copy + trial.trying, trial.left
    else:
        copy, candidates = trial.copy, closest_first(trial.trying)
        met = tuple(one for one in trial.trying if one in verdict.good)
        if trial.enough <= len(met) < len(trial.trying):
            return Trial(trial.group, met, copy, tuple(one for one in candidates if one not in verdict.good))
    keep = candidates[: len(candidates) // 2]
    half = Trial(trial.group, keep, copy)
    if len(keep) < half.enough:
        return following_group
    saving = groups[trial.group].bytes * (len(keep) - (0 if copy else 1))
    return half if saving >= (groups[trial.group + 1].saving if following_group else 0) else following_group


def _beyond(groups: Sequence[Group], trial: Trial, passed: bool) -> Trial | None:
    """The groups after those of a trial: twice as many, or half of the rest if they are known to fail together."""
    end = trial.group + trial.width
    whole = passed and not trial.copy and trial.trying == groups[trial.group].instances
    if passed and end < trial.failed:
        return begin(groups, end, max((trial.failed - end) // 2, 1), trial.failed)
    return begin(groups, end, 2 * trial.width if whole or trial.width > 1 else 1)
