"""Profiling a chain on this machine, from nothing or from where an earlier run stopped.

times = profile_chain(chain, ProfileOptions(backend="torch"), progress=print)
"""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeward.errors import ConfigError, StoreError
from edgeward.graph.chain import Chain
from edgeward.graph.stage import BACKENDS
from edgeward.profile.backends import Runner, prepare
from edgeward.profile.file import replace_text
from edgeward.profile.machine import machine
from edgeward.profile.measure import Samples, calibrate, pieces_of, run_round, summarise
from edgeward.profile.profile import DeviceTimes, Profile

__all__ = ["ProfileOptions", "as_profile", "profile_chain"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ProfileOptions:
    """How to measure: runtime, compute threads, and rounds (at least 3)."""

    backend: str = "onnxruntime"
    threads: int = 1
    repeats: int = 10

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigError(f"backend {self.backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
        if not 1 <= self.threads <= 1024:
            raise ConfigError(
                f"threads is {self.threads}; choose from 1 to the cores of the machine ({os.cpu_count()})"
            )
        if not 3 <= self.repeats <= 10_000:
            raise ConfigError(f"repeats is {self.repeats}; choose from 3 to 10000 (10 is usual)")


def as_profile(chain: Chain, model: str, input_shape: tuple[int, ...] = ()) -> Profile:
    """The profile of a chain before anything is measured."""
    return Profile(
        model=model,
        fingerprint=chain.fingerprint,
        input_bytes=chain.input_bytes,
        input_shape=input_shape,
        blocks=chain.costs,
    )


def profile_chain(
    chain: Chain, options: ProfileOptions, progress: Progress = lambda *_: None, partial: Path | None = None
) -> DeviceTimes:
    """Measure every block (and pair of blocks where the runtime fuses), and the whole, `options.repeats` times.

    progress: called with steps done, steps in all, and what is being done. partial: a file that keeps finished rounds;
    an interrupted run with the same chain and options goes on from it, and it is removed at the end. resident_bytes is
    how far the process's memory rose for the whole network. Raises TraceError, ConfigError, StoreError.
    """
    runner = prepare(chain, options.backend, options.threads)
    resident = _resident_for_whole(chain, runner)
    pieces = pieces_of(len(chain), runner.fuses)
    total = 2 * len(pieces) + options.repeats
    progress(0, total, "preparing")
    calls = {}
    for done, piece in enumerate(pieces, start=1):
        calls[piece] = runner.piece(*piece)
        progress(done, total, "preparing")
    warmed = iter(range(len(pieces) + 1, total))
    repeats = calibrate(calls, lambda: progress(next(warmed), total, "warming up"))
    identity = {"fingerprint": chain.fingerprint, "options": asdict(options), "machine": machine()}
    samples = _resumed(partial, identity, len(pieces)) or Samples.empty(pieces)
    while samples.rounds < options.repeats:
        samples = samples.plus(run_round(calls, repeats))
        if partial is not None:
            replace_text(partial, json.dumps({"identity": identity, "samples": samples.dump()}))
        progress(2 * len(pieces) + samples.rounds, total, f"round {samples.rounds} of {options.repeats}")
    times = summarise(samples, len(chain), options.threads)
    if partial is not None:
        partial.unlink(missing_ok=True)
    return times.model_copy(
        update={
            "backend": options.backend,
            "resident_bytes": resident,
            "machine": machine(),
        }
    )


def _resumed(partial: Path | None, identity: Mapping[str, object], pieces: int) -> Samples | None:
    if partial is None or not partial.is_file():
        return None
    try:
        record = json.loads(partial.read_text())
        samples = Samples.load(record["samples"]) if record["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{partial} is damaged: {error}; remove it to measure from the beginning") from error
    return samples if samples is not None and len(samples.wall) == pieces else None


def _resident_for_whole(chain: Chain, runner: Runner) -> int:
    """Bytes of memory that the whole network takes once it has run. Its weights are counted where torch holds them."""
    gc.collect()
    before = _resident_bytes()
    call = runner.piece(0, len(chain) - 1)
    for _ in range(2):
        call()
    held = 0 if runner.fuses else sum(one.numel() * one.element_size() for one in chain.parameters())
    return max(_resident_bytes() - before, 0) + held


def _resident_bytes() -> int:
    """Memory of this process: what is resident now, or its peak where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak
