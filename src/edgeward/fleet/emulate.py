"""A fleet emulated on one machine: slow devices and thin links that behave as the fleet file says.

    with EmulatedFleet(load_fleet(Path("fleet.toml"))) as emulated:
        worker = emulated.popen("pi", [sys.executable, "-m", "worker"], stdout=subprocess.PIPE)
        emulated.address_of("box", seen_from="pi")     # '10.200.0.2'
        emulated.mode                                  # 'kernel', or 'shaper' without root

Whatever is created is written down first, so that it can be removed even when its owner was killed.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from edgeward.errors import FleetError
from edgeward.fleet.build import Mode, build, destroy, identity_of, sweep
from edgeward.fleet.dutycycle import kill_family
from edgeward.fleet.fleet import Fleet
from edgeward.fleet.machinery import Machinery
from edgeward.fleet.play import TracePlayer
from edgeward.fleet.state import Process, Record, default_folder, read_all, write
from edgeward.fleet.traces import load_trace

__all__ = ["EmulatedFleet"]


class EmulatedFleet:
    """The devices of a fleet as isolated groups of processes on this machine; a context manager.

    state_dir: where records are kept; the user's own folder by default.
    mode: "kernel" needs root and raises FleetError without; "shaper" needs nothing; "auto" takes the kernel if it can.
    """

    def __init__(self, fleet: Fleet, state_dir: Path | None = None, *, mode: Mode = "auto") -> None:
        self.fleet = fleet
        self._folder = state_dir or default_folder()
        self._wanted = mode
        self._record: Record | None = None
        self._machinery: Machinery | None = None
        self._player: TracePlayer | None = None
        self._children: list[subprocess.Popen[Any]] = []

    @classmethod
    def of_record(cls, record: Record, state_dir: Path, machinery: Machinery) -> Self:
        """A fleet that is up already (see `edgeward.fleet.standing.attach`)."""
        emulated = cls(record.fleet, state_dir, mode=record.mode)
        emulated._record, emulated._machinery = record, machinery
        return emulated

    @property
    def mode(self) -> Literal["kernel", "shaper"]:
        """By which means the fleet is emulated. Raises FleetError before it is up."""
        return self._up()[0].mode

    def __enter__(self) -> Self:
        if self._record is not None:  # attached
            return self
        sweep(self._folder)
        traces = {way: load_trace(link.trace) for way, link in self.fleet.ways().items() if link.trace is not None}
        owner = Process.current()
        seed = f"{self.fleet.model_dump_json()} {owner.model_dump_json()} {time.monotonic_ns()}"
        self._record, self._machinery = build(self.fleet, self._folder, self._wanted, (identity_of(seed), owner, ""))
        if traces and self.mode == "kernel":
            self._player = TracePlayer(self._machinery.set_bandwidth, traces)
            self._player.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._player is not None:
                self._player.close()
        finally:
            self._close()

    def _close(self) -> None:
        record, machinery = self._up()
        machinery.close()
        if record.owner is not None:
            destroy(self._current(), self._folder)
        for child in self._children:
            if child.poll() is None:
                kill_family(child.pid)
            child.wait()
        self._children.clear()
        self._record = self._machinery = self._player = None

    def popen(
        self, device: str, argv: Sequence[str], *, replica: int = 0, **popen_kwargs: Any
    ) -> subprocess.Popen[Any]:
        """Start a program on a device, inside its network and its limits; so is whatever the program starts.

        replica: which of the device's `count` machines. The rest goes to `subprocess.Popen`. Raises FleetError.
        """
        record, machinery = self._up()
        place = self.fleet.device(device)
        if not 0 <= replica < place.count:
            raise FleetError(f"device {device!r} has no replica {replica}; choose from 0 to {place.count - 1}")
        process = machinery.popen(place, replica, argv, popen_kwargs)
        self._children.append(process)
        if record.mode == "shaper":
            current = self._current()
            alive = tuple(one for one in current.processes if one.alive)
            self._record = current.model_copy(update={"processes": (*alive, Process.of(process.pid))})
            write(self._folder, self._record)
        return process

    def address_of(self, target: str, seen_from: str) -> str:
        """The address under which one device reaches another.

        Without the kernel all devices share 127.0.0.1 and must use different ports. Raises FleetError without a link.
        """
        self.fleet.device(target), self.fleet.device(seen_from)
        return self._up()[1].address_of(target, seen_from)

    def latency(self, source: str, target: str) -> float:
        """Seconds of latency that the sender has to add itself, in either mode. Raises FleetError without a link."""
        link = self.fleet.link(source, target)
        if link is None:
            raise FleetError(f"no link leads from {source!r} to {target!r}; add a [[link]] to the fleet file")
        return link.latency

    def set_bandwidth(self, source: str, target: str, bandwidth: float) -> None:
        """Change a link while it is in use (bits per second; kernel mode), both ways if it is the same both ways.

        Raises FleetError.
        """
        changed = self.fleet.with_link(source, target, bandwidth=bandwidth)
        for way, link in changed.ways().items():
            if link == changed.link(source, target):
                self._up()[1].set_bandwidth(*way, bandwidth)
        self.fleet = changed

    def _up(self) -> tuple[Record, Machinery]:
        if self._record is None or self._machinery is None:
            raise FleetError(
                f"fleet {self.fleet.name!r} is not up; use it inside 'with EmulatedFleet(...)' or attach()"
            )
        return self._record, self._machinery

    def _current(self) -> Record:
        """The record as it is on disk, to which others who attached may have added."""
        record = self._up()[0]
        return next((one for one in read_all(self._folder) if one.identity == record.identity), record)
