"""Where latencies are measured: on this machine, on a device of an emulated fleet, or by a device's stored profile.

site = Emulated(Path("fleet.toml"), "pi")
site.time({"dense": dense_onnx, "small": small_onnx}, (1, 3, 224, 224), rounds=9)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeward.errors import PruneError
from edgeward.profile.profile import Profile
from edgeward.prune.latency import Timing, measure

__all__ = ["Emulated", "Here", "Scaled", "Site"]


class Site(Protocol):
    """A device that times networks."""

    @property
    def how(self) -> str:
        """In words, where its figures come from."""

    def time(self, networks: Mapping[str, bytes], shape: Sequence[int], rounds: int) -> Timing:
        """Time ONNX networks side by side, the first of them as the baseline."""


@dataclass(frozen=True)
class Here:
    """This machine."""

    threads: int = 1

    @property
    def how(self) -> str:
        """In words."""
        return "measured on this machine"

    def time(self, networks: Mapping[str, bytes], shape: Sequence[int], rounds: int) -> Timing:
        """As `Site.time`."""
        return measure(networks, shape, rounds=rounds, threads=self.threads)


@dataclass(frozen=True)
class Scaled:
    """A device known by its profile of the dense network: what is measured here, times what the device takes longer.

    Raises PruneError when the profile holds no times of it.
    """

    profile: Profile
    device: str
    threads: int = 1

    def __post_init__(self) -> None:
        if self.device not in self.profile.times:
            known = ", ".join(sorted(self.profile.times)) or "none"
            raise PruneError(
                f"the profile has no times of {self.device!r} (known: {known}); measure there with "
                f"edgeward profile --device {self.device}"
            )

    @property
    def how(self) -> str:
        """In words."""
        return f"measured here, scaled to {self.device} by its profile of the dense network"

    def time(self, networks: Mapping[str, bytes], shape: Sequence[int], rounds: int) -> Timing:
        """As `Site.time`; the first network must be the one that was profiled."""
        timing = measure(networks, shape, rounds=rounds, threads=self.threads)
        times = self.profile.times[self.device]
        there = times.segment(0, len(times.seconds) - 1) if times.whole is None else times.whole
        factor = there / timing.figure(next(iter(networks))).median
        return Timing({name: tuple(factor * one for one in values) for name, values in timing.seconds.items()})


@dataclass(frozen=True)
class Emulated:
    """A device of a fleet that is up on this machine (`edgeward fleet up`), within its limits."""

    file: Path
    device: str
    threads: int = 1

    @property
    def how(self) -> str:
        """In words."""
        return f"measured on {self.device} of the fleet that is emulated here"

    def time(self, networks: Mapping[str, bytes], shape: Sequence[int], rounds: int) -> Timing:
        """As `Site.time`. Raises FleetError when the fleet is not up, PruneError when the measurement fails."""
        from edgeward.fleet.file import load_fleet
        from edgeward.fleet.standing import attach

        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, data in enumerate(networks.values()):
                files.append(Path(folder) / f"{number}.onnx")
                files[-1].write_bytes(data)
            command = [sys.executable, "-m", "edgeward", "prune", "measure", *map(str, files), "--json"]
            command += ["--input", "x".join(map(str, shape[1:])), "--batch", str(shape[0])]
            command += ["--rounds", str(rounds), "--threads", str(self.threads)]
            with attach(load_fleet(self.file), origin=str(self.file.resolve())) as emulated:
                process = emulated.popen(
                    self.device, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
                answer, errors = process.communicate()
        if process.returncode:
            raise PruneError(f"timing on {self.device} failed: {errors.strip()[-300:]}")
        seconds = json.loads(answer)["seconds"]
        names = [*networks, *(name for name in seconds if not name.endswith(".onnx"))]
        return Timing({name: tuple(values) for name, values in zip(names, seconds.values(), strict=True)})
