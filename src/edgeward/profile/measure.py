"""Timing the blocks of a chain on this machine.

    samples = Samples.empty(len(chain), fuses=True)
    for _ in range(10):
        samples = samples.plus(one_round(calls))
    times = summarise(samples)

In every round each piece runs once, in the order of the network, so that caches are as in real use; a piece shorter
than a tenth of a millisecond is repeated until it fills that. On a device whose processor time is rationed, a short
call runs at full speed or waits out a pause: no median of wall times is right. There every piece is charged its
processor time, stretched by what the round as a whole was stretched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from edgeward.profile.backends import Call
from edgeward.profile.profile import DeviceTimes

__all__ = ["RATIONED", "Piece", "Samples", "calibrate", "pieces_of", "run_round", "summarise"]

Piece = tuple[int, int]
"""First and last block."""
_SHORTEST = 1e-4
RATIONED = 1.15
"""A run that took this many times its processor time was made to wait."""


@dataclass(frozen=True)
class Samples:
    """Wall and processor seconds of every piece, one value per round."""

    wall: Mapping[Piece, tuple[float, ...]]
    cpu: Mapping[Piece, tuple[float, ...]]

    @classmethod
    def empty(cls, pieces: tuple[Piece, ...]) -> Self:
        """No rounds yet."""
        return cls(dict.fromkeys(pieces, ()), dict.fromkeys(pieces, ()))

    @property
    def rounds(self) -> int:
        """How many complete rounds there are."""
        return min(len(values) for values in self.wall.values())

    def plus(self, taken: Mapping[Piece, tuple[float, float]]) -> Samples:
        """With one more round."""
        return Samples(
            {piece: (*values, taken[piece][0]) for piece, values in self.wall.items()},
            {piece: (*values, taken[piece][1]) for piece, values in self.cpu.items()},
        )

    def dump(self) -> dict[str, list[list[float]]]:
        """As JSON holds it: "first-last" to [wall, cpu] rows."""
        return {
            f"{first}-{last}": [list(self.wall[first, last]), list(self.cpu[first, last])] for first, last in self.wall
        }

    @classmethod
    def load(cls, record: Mapping[str, list[list[float]]]) -> Self:
        """From what `dump` made. Raises ValueError or KeyError for anything else."""
        wall, cpu = {}, {}
        for name, (walls, cpus) in record.items():
            first, last = (int(part) for part in name.split("-"))
            wall[first, last], cpu[first, last] = tuple(map(float, walls)), tuple(map(float, cpus))
        return cls(wall, cpu)


def pieces_of(blocks: int, fuses: bool) -> tuple[Piece, ...]:
    """What is measured: every block, the whole, and every pair of neighbours where the runtime fuses across them."""
    pairs = [(index, index + 1) for index in range(blocks - 1)] if fuses else []
    return tuple(dict.fromkeys([*((index, index) for index in range(blocks)), *pairs, (0, blocks - 1)]))


def run_round(calls: Mapping[Piece, Call], repeats: Mapping[Piece, int]) -> dict[Piece, tuple[float, float]]:
    """Every piece once (short ones as often as `repeats` says): wall and processor seconds of one call."""
    taken = {}
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for piece, call in calls.items():
        count = repeats[piece]
        for _ in range(count):
            call()
        # One reading ends a piece and begins the next: a kernel makes a process wait when it asks for the time, and
        # no wait may fall between two windows.
        cpu_now, wall_now = time.process_time_ns(), time.perf_counter_ns()
        taken[piece] = ((wall_now - wall) / count / 1e9, (cpu_now - cpu) / count / 1e9)
        cpu, wall = cpu_now, wall_now
    return taken


def calibrate(calls: Mapping[Piece, Call], tick: Callable[[], object] = lambda: None) -> dict[Piece, int]:
    """Warm every piece up with two calls; how often to repeat it to fill the shortest time."""
    counts = {}
    for piece, call in calls.items():
        call()
        start = time.perf_counter_ns()
        call()
        seconds = max((time.perf_counter_ns() - start) / 1e9, 1e-7)
        counts[piece] = max(1, min(1000, round(_SHORTEST / seconds)))
        tick()
    return counts


def summarise(samples: Samples, blocks: int, threads: int) -> DeviceTimes:
    """Median, 10th and 90th percentile of every block, what joining saves, and the whole.

    Raises ValueError when a block took no time at all: a clock too coarse to profile with.
    """
    wall = {piece: np.array(values) for piece, values in samples.wall.items()}
    cpu = {piece: np.array(values) for piece, values in samples.cpu.items()}
    per_round = sum(wall.values()) / np.maximum(sum(cpu.values()), 1e-9)
    stretched = float(sum(values.sum() for values in wall.values()) / max(sum(v.sum() for v in cpu.values()), 1e-9))
    rationed = threads == 1 and stretched > RATIONED
    values = {piece: cpu[piece] * stretched for piece in cpu} if rationed else wall
    singles = [values[index, index] for index in range(blocks)]
    middle = [float(np.median(one)) for one in singles]
    if min(middle) <= 0:
        raise ValueError(f"block {middle.index(min(middle))} took 0 s: this machine's clock is too coarse to profile")
    low, high = (np.quantile(per_round, share) / stretched if rationed else 1.0 for share in (0.1, 0.9))
    whole = float(np.median(values[0, blocks - 1]))
    notes = []
    if rationed:
        notes.append(f"processor time is rationed: {stretched:.2f} s of waiting and computing per second of computing")
    joined = _joined(middle, values, whole)
    return DeviceTimes(
        seconds=tuple(middle),
        low=tuple(min(float(np.quantile(one, 0.1) * low), m) for one, m in zip(singles, middle, strict=True)),
        high=tuple(max(float(np.quantile(one, 0.9) * high), m) for one, m in zip(singles, middle, strict=True)),
        joined=joined,
        whole=whole,
        threads=threads,
        repeats=samples.rounds,
        notes=tuple(notes),
    )


def _joined(middle: list[float], values: Mapping[Piece, npt.NDArray[np.float64]], whole: float) -> tuple[float, ...]:
    """Seconds saved at every boundary by running both sides as one piece.

    The saving of a pair is measured. What the whole saves beyond the sum of all pairs (or short of it) is spread over
    the boundaries in proportion to the smaller of their two sides. A boundary saves at most the block behind it; what
    noise puts beyond that goes to the others, so that the stretch of all blocks takes what the whole was measured to.
    """
    count = len(middle)
    if (0, 1) not in values or count < 2:
        return ()
    if count == 2:
        return (min(middle[0] + middle[1] - whole, middle[1]),)
    pairs = [middle[k] + middle[k + 1] - float(np.median(values[k, k + 1])) for k in range(count - 1)]
    rest = sum(middle) - whole - sum(pairs)
    room = [min(middle[k], middle[k + 1]) for k in range(count - 1)]
    wanted = [saved + rest * share / sum(room) for saved, share in zip(pairs, room, strict=True)]
    joined = [min(one, most) for one, most in zip(wanted, middle[1:], strict=True)]
    slack = [most - one for one, most in zip(joined, middle[1:], strict=True)]
    excess = min(sum(wanted) - sum(joined), sum(slack))
    return tuple(one + excess * free / (sum(slack) or 1.0) for one, free in zip(joined, slack, strict=True))
