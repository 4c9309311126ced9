"""What models took in a live run, beside processes that came and went in phases: a machine for the virtual clock.

machine = LoggedMachine.of(recording.events, phases=(0, 2, 1), idle=seconds)
machine.took("nano", now=5.0)                # in the second phase
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from costs import Machine

from edgeward.clock import to_seconds
from edgeward.serve.actions import Infer, Load
from edgeward.serve.events import Event, Inferred
from edgeward.serve.latency import alone, programs
from edgeward.serve.simulate import pairs

PHASE = 4.0
"""Seconds."""
MEMORY = 1 << 30
"""Bytes that the box may take: room for all models."""


@dataclass(frozen=True)
class LoggedMachine(Machine):
    """Latencies of a run: medians by model and number of competitors; of a model that did not run under so many, its
    idle latency times what the others took longer. beside: competitors by what was waited for them, by their number."""

    medians: Mapping[tuple[str, int], float] = field(default_factory=dict)
    beside: Mapping[int, float] = field(default_factory=dict)
    slower: Mapping[int, float] = field(default_factory=dict)
    phases: tuple[int, ...] = (0,)
    ratio: float = 1.0

    @classmethod
    def of(cls, events: Sequence[Event], phases: tuple[int, ...], idle: Mapping[str, float]) -> LoggedMachine:
        samples: dict[tuple[str, int], list[float]] = defaultdict(list)
        loads: dict[str, list[float]] = defaultdict(list)
        beside: dict[int, list[float]] = defaultdict(list)
        for decided, outcome in pairs(events):
            took, others = to_seconds(outcome.time_ns - decided.time_ns), _others(to_seconds(decided.time_ns), phases)
            if isinstance(decided.action, Load):
                loads[decided.action.model].append(took)
            elif isinstance(decided.action, Infer) and isinstance(outcome, Inferred):
                for second in outcome.also:
                    samples[second.part or second.model, others].append(to_seconds(second.took_ns))
                    took -= to_seconds(second.took_ns)
                samples[outcome.part or outcome.model, others].append(took)
                if outcome.worked_ns:
                    beside[others].append(programs(took, took - to_seconds(outcome.worked_ns)))
        ratios = {key: statistics.median(each) / idle[key[0]] for key, each in samples.items()}
        everywhere = statistics.median(ratios.values())
        slower = {
            others: statistics.median([ratio for key, ratio in ratios.items() if key[1] == others] or [everywhere])
            for others in set(phases)
        }
        return cls(
            idle,
            load_seconds={name: statistics.median(loads.get(name, [0.0])) for name in idle},
            memory=MEMORY,
            medians={key: statistics.median(each) for key, each in samples.items()},
            beside={others: statistics.median(each) for others, each in beside.items()},
            slower=slower,
            phases=phases,
            ratio=everywhere,
        )

    def took(self, model: str, now: float, part: str = "") -> float:
        name, others = part or model, _others(now, self.phases)
        return self.medians.get((name, others), self.seconds[name] * self.slower[others])

    def worked(self, model: str, now: float, part: str = "") -> float:
        return alone(self.took(model, now, part), self.beside.get(_others(now, self.phases), 0.0))


def _others(now: float, phases: tuple[int, ...]) -> int:
    return phases[int(now / PHASE) % len(phases)]
