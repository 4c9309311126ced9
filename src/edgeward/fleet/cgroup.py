"""Control groups of the kernel: how much processor time and memory the processes of a device get.

    control = find_control()                      # None where there are no control groups
    group = Group(control, "ew-1f0c-0", share=0.25, memory=256 << 20)
    group.create()
    ...                                           # a process joins by writing its id to each of group.doors
    for folder in group.folders:
        end_group(folder)

Versions 1 (one hierarchy per controller) and 2 (one for all) are both spoken.
Source: Linux kernel documentation, "CFS Bandwidth Control", "Memory Resource Controller", "Control Group v2".
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from edgeward.errors import FleetError

__all__ = ["PERIOD_US", "Control", "Group", "end_group", "find_control", "quota"]

PERIOD_US = 2_000
"""Shortest time, in microseconds, over which a share is kept: evenly slow needs it short (see docs/fleet.md)."""
_SHORTEST_QUOTA_US = 1000  # the kernel's own lower limit
_LONGEST_PERIOD_US = 1_000_000  # and its upper limit of a period
_PATIENCE = 5.0


@dataclass(frozen=True)
class Control:
    """Where the controllers are mounted; the same folder twice for version 2."""

    version: int
    cpu: Path
    memory: Path


def find_control(mounts: Path = Path("/proc/mounts")) -> Control | None:
    """The mounted `cpu` and `memory` controllers, or None where one is absent."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    first = {option: Path(row[1]) for row in rows if row[2] == "cgroup" for option in row[3].split(",")}
    if "cpu" in first and "memory" in first:
        return Control(1, first["cpu"], first["memory"])
    for row in rows:
        with contextlib.suppress(OSError):
            root = Path(row[1])
            if row[2] == "cgroup2" and {"cpu", "memory"} <= set((root / "cgroup.controllers").read_text().split()):
                return Control(2, root, root)
    return None


def quota(share: float) -> tuple[int, int]:
    """(quota, period) in microseconds that give `share` of one core; 2.0 is two cores.

    Raises FleetError below 0.1 %, which the kernel cannot keep.
    """
    period = max(PERIOD_US, round(_SHORTEST_QUOTA_US / share))
    if period > _LONGEST_PERIOD_US:
        raise FleetError(f"a share of {share:.3g} of a core is below 0.001, the kernel's least; raise 'compute'")
    return round(share * period), period


@dataclass(frozen=True)
class Group:
    """One control group. share: of one core. memory: bytes, or None to leave memory alone."""

    control: Control
    name: str
    share: float
    memory: int | None

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that stand for this group, the one with the processor's controller first."""
        cpu, memory = self.control.cpu / self.name, self.control.memory / self.name
        return (cpu,) if self.memory is None or cpu == memory else (cpu, memory)

    @property
    def doors(self) -> tuple[Path, ...]:
        """The files to which a process writes its id to join."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    def create(self) -> None:
        """Make the group with its limits. Raises FleetError when the kernel refuses."""
        budget, period = quota(self.share)
        cpu, memory = self.folders[0], self.folders[-1]
        try:
            if self.control.version == 2:
                (self.control.cpu / "cgroup.subtree_control").write_text("+cpu +memory")
            for folder in self.folders:
                folder.mkdir()
            if self.control.version == 2:
                (cpu / "cpu.max").write_text(f"{budget} {period}")
            else:
                (cpu / "cpu.cfs_period_us").write_text(str(period))
                (cpu / "cpu.cfs_quota_us").write_text(str(budget))
            if self.memory is not None:
                self._limit_memory(memory, self.memory)
        except OSError as error:
            raise FleetError(f"control group {self.name}: the kernel refused ({error}); use mode='shaper'") from error

    def _limit_memory(self, folder: Path, limit: int) -> None:
        if self.control.version == 2:
            (folder / "memory.max").write_text(str(limit))
            extra = (("memory.swap.max", 0),)
        else:
            (folder / "memory.limit_in_bytes").write_text(str(limit))
            extra = (("memory.memsw.limit_in_bytes", limit),)
        for name, value in extra:
            with contextlib.suppress(OSError):  # a kernel without swap accounting has no such file
                if (folder / name).exists():
                    (folder / name).write_text(str(value))


def end_group(folder: Path) -> None:
    """Kill what runs in a group and remove it; one that is gone already is fine.

    Raises FleetError when a process does not end or the kernel refuses.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        # Both in one loop: a process that was about to join when the others were killed is killed the next time.
        members = _members(folder)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > end:
                raise FleetError(
                    f"cannot remove control group {folder} with processes {members}: {error.strerror};"
                    " end them by hand, then run 'edgeward fleet down'"
                ) from error
        time.sleep(0.005)


def _members(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []
