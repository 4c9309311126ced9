"""How fast networks are side by side, and whether one is faster beyond what chance gives.

    timing = measure({"dense": dense_onnx, "small": small_onnx}, rounds=30)
    timing.figure("small").median                  # seconds
    speedup = timing.speedup("dense", "small")
    speedup.certain, str(speedup)                  # True, '1.83x (1.79 to 1.86; noise 1.02x)'

Every round runs all networks in turn, the first of them twice as a network of its own: what its twin seems to gain is
the noise that a speed-up has to exceed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeward.errors import PruneError
from edgeward.profile.measure import RATIONED
from edgeward.profile.variant import LatencyFigure

__all__ = ["Speedup", "Timing", "measure", "speedup_of"]

_LEAST_SECONDS = 0.004
_RESAMPLES = 1000
TWIN = "="
"""Name of the first network's twin."""


@dataclass(frozen=True)
class Speedup:
    """ratio: median of the ratios of paired rounds; low, high: its 95 % interval. noise: what a twin seemed to gain."""

    ratio: float
    low: float
    high: float
    noise: float

    @property
    def certain(self) -> bool:
        """Whether it is faster beyond the noise."""
        return self.low > self.noise

    def __str__(self) -> str:
        if not self.certain:
            return f"no speed-up beyond the noise ({self.low:.2f} to {self.high:.2f}x; noise {self.noise:.2f}x)"
        return f"{self.ratio:.2f}x ({self.low:.2f} to {self.high:.2f}; noise {self.noise:.2f}x)"


@dataclass(frozen=True)
class Timing:
    """Seconds of one inference by network and round; rounds are paired. `TWIN` is the first network once more."""

    seconds: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.seconds.values()}
        if len(lengths) != 1 or min(lengths) < 3 or any(not v > 0 for values in self.seconds.values() for v in values):
            raise PruneError("a timing needs at least 3 rounds of every network, each above 0 seconds")

    def figure(self, name: str) -> LatencyFigure:
        """Median and spread of one network."""
        return LatencyFigure.of(self.seconds[name])

    def speedup(self, before: str, after: str) -> Speedup:
        """How much faster `after` is than `before`."""
        noise = 1.0
        if TWIN in self.seconds:
            first = next(iter(self.seconds))
            twin = speedup_of(self.seconds[first], self.seconds[TWIN])
            noise = max(twin.high, 1 / twin.low)
        return speedup_of(self.seconds[before], self.seconds[after], noise)


def speedup_of(before: Sequence[float], after: Sequence[float], noise: float = 1.0) -> Speedup:
    """The median of paired ratios, with the interval in which 95 % of resampled medians lie."""
    ratios = np.array(before) / np.array(after)
    chosen = np.random.default_rng(0).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[chosen], axis=1), (0.025, 0.975))
    return Speedup(float(np.median(ratios)), float(low), float(high), noise)


def measure(
    networks: Mapping[str, bytes],
    shape: Sequence[int],
    *,
    rounds: int = 30,
    threads: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Timing:
    """Time ONNX networks with one float32 input of this shape on ONNX Runtime, the first of them also as its own twin.

    With one thread, where this process had to wait for the processor, a network is charged its processor time,
    stretched by what all of them waited, as `edgeward.profile.measure` charges blocks.
    Raises PruneError when one cannot be run.
    """
    first = next(iter(networks))
    image = np.random.default_rng(0).random(tuple(shape), dtype=np.float32)
    runs = {name: _ready(name, data, image, threads) for name, data in {**networks, TWIN: networks[first]}.items()}
    calls = {name: _calls(run) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    worked: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in names:
            begun, busy = time.perf_counter(), time.thread_time()
            for _ in range(calls[name]):
                runs[name]()
            worked[name].append((time.thread_time() - busy) / calls[name])
            taken[name].append((time.perf_counter() - begun) / calls[name])
        progress(number + 1, rounds)
    waited = sum(map(sum, taken.values())) / max(sum(map(sum, worked.values())), 1e-9)
    if threads == 1 and waited > RATIONED:
        return Timing({name: tuple(waited * one for one in values) for name, values in worked.items()})
    return Timing({name: tuple(values) for name, values in taken.items()})


def _ready(name: str, data: bytes, image: Any, threads: int) -> Callable[[], object]:
    import onnxruntime

    from edgeward.weights.pack import session_options

    try:
        session = onnxruntime.InferenceSession(data, session_options(threads), ["CPUExecutionProvider"])
        feeds = {session.get_inputs()[0].name: image}
        session.run(None, feeds)
    except Exception as error:  # the runtime's exceptions share no base class of their own
        raise PruneError(f"{name} cannot be timed: {' '.join(str(error).split())[:200]}") from error
    return lambda: session.run(None, feeds)


def _calls(run: Callable[[], object]) -> int:
    """How often to run in a row, so that the clock's grain does not matter."""
    begun = time.perf_counter()
    for _ in range(3):
        run()
    return max(1, int(3 * _LEAST_SECONDS / (time.perf_counter() - begun)))
