"""What a smaller network has to reach: a figure, its limit, and where it is measured.

goal = parse_goal("latency<=12ms@pi")       # also "params<=0.1x", "macs<=200M", "size<=1MiB", "memory<=4MiB"
goal.limit(dense_value)                     # 0.012 seconds; a limit with an x is a share of the dense network's
goal.met(value, dense_value)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from edgeward.errors import PruneError, nearest
from edgeward.units import format_bytes, parse_bytes, parse_seconds

__all__ = ["METRICS", "Goal", "format_figure", "parse_goal"]

_FORM = re.compile(r"\s*([a-z]+)\s*(<=|<|=)\s*([^@]+?)\s*(?:@\s*(\S+)\s*)?")
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)")
_POWERS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def _count(text: str) -> float:
    match = _COUNT.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a count; write it like 270000, 0.27M or 0.1x")
    return float(match[1]) * _POWERS[match[2]]


def _seconds(text: str) -> float:
    if text.replace(".", "").isdigit():
        raise ValueError(f"{text!r} has no unit; write {text}ms or {text}s")
    return parse_seconds(text)


METRICS: dict[str, tuple[str, Callable[[str], float]]] = {
    "latency": ("seconds of one inference, median", _seconds),
    "params": ("parameters", _count),
    "macs": ("multiply-accumulates of one sample", _count),
    "size": ("bytes of the weights", parse_bytes),
    "memory": ("bytes of the weights and of the largest activations alive at once", parse_bytes),
}
"""By name: what it is, and how its limit is read."""


@dataclass(frozen=True)
class Goal:
    """metric: one of `METRICS`. value: the most it may be, or, where `relative`, a share of the dense network's.

    device: whose latency it is; "" for this machine.
    """

    metric: str
    value: float
    relative: bool = False
    device: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise PruneError(f"no figure is called {self.metric!r}; {nearest(self.metric, METRICS)}")
        if not (math.isfinite(self.value) and self.value > 0) or (self.relative and self.value >= 1):
            allowed = "a share between 0 and 1, such as 0.5x" if self.relative else "above 0"
            unit = "x" if self.relative else ""
            raise PruneError(f"{self.metric}<={self.value:g}{unit}: the limit must be {allowed}")
        if self.device and self.metric != "latency":
            raise PruneError(f"{self.metric} is the same on every device; leave out @{self.device}")

    def limit(self, dense: float) -> float:
        """The most it may be, given the dense network's figure."""
        return self.value * dense if self.relative else self.value

    def met(self, value: float, dense: float) -> bool:
        """Whether a figure is within the limit."""
        return value <= self.limit(dense)

    def __str__(self) -> str:
        shown = f"{self.value:g}x" if self.relative else format_figure(self.metric, self.value)
        return f"{self.metric}<={shown}{f'@{self.device}' if self.device else ''}"


def parse_goal(text: str) -> Goal:
    """A goal from a text such as "latency<=12ms@pi" or "params<=0.1x". Raises PruneError that states the form."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise PruneError(f'{text!r} is not a target; write it like "latency<=12ms@pi", "params<=0.1x", "memory<=4MiB"')
    metric, _, value, device = match.groups()
    if metric not in METRICS:
        raise PruneError(f"{text!r}: no figure is called {metric!r}; {nearest(metric, METRICS)}")
    try:
        relative = value.endswith("x")
        number = float(value[:-1]) if relative else float(METRICS[metric][1](value))
    except ValueError as error:
        raise PruneError(f"{text!r}: {error}") from error
    return Goal(metric, number, relative, device or "")


def format_figure(metric: str, value: float) -> str:
    """A figure for people."""
    if metric == "latency":
        return f"{1000 * value:.3g} ms"
    if metric in ("size", "memory"):
        return format_bytes(value)
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{value:.0f}"
