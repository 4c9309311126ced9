"""Emulated fleets that stay up without an owner, from `bring_up` until `take_down`.

bring_up(fleet)
with attach(fleet) as emulated:
    emulated.popen("pi", ["hostname"])
take_down(fleet)
"""

from __future__ import annotations

from pathlib import Path

from edgeward.errors import FleetError
from edgeward.fleet.build import Mode, build, destroy, identity_of, machinery_of, sweep
from edgeward.fleet.cgroup import find_control
from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.fleet import Fleet
from edgeward.fleet.state import Record, default_folder, read_all

__all__ = ["attach", "bring_up", "find", "take_down"]


def bring_up(fleet: Fleet, state_dir: Path | None = None, *, mode: Mode = "auto", origin: str = "") -> Record:
    """Emulate a fleet that stays up without an owner until `take_down`. origin: the file it came from.

    Raises FleetError when this fleet, or one from this file, is up.
    """
    folder = state_dir or default_folder()
    sweep(folder)
    if find(fleet, folder, origin=origin) is not None:
        raise FleetError(
            f"fleet {fleet.name!r} is up already; run 'edgeward fleet exec' to use it, 'edgeward fleet down' to end it"
        )
    return build(fleet, folder, mode, (identity_of(fleet.model_dump_json() + origin), None, origin))[0]


def find(fleet: Fleet, state_dir: Path | None = None, *, origin: str = "") -> Record | None:
    """The record of a fleet that stays up: the one from this file, else an equal one."""
    records = [one for one in read_all(state_dir or default_folder()) if one.owner is None and one.this_boot]
    same_file = [one for one in records if origin and one.origin == origin]
    return next(iter([*same_file, *(one for one in records if one.fleet == fleet)]), None)


def attach(fleet: Fleet, state_dir: Path | None = None, *, origin: str = "") -> EmulatedFleet:
    """The fleet that `bring_up` left running; leaving its context ends what was started through it, not the fleet.

    Raises FleetError when it is not up.
    """
    folder = state_dir or default_folder()
    record = find(fleet, folder, origin=origin)
    if record is None:
        raise FleetError(f"fleet {fleet.name!r} is not up; run 'edgeward fleet up' with its file first")
    return EmulatedFleet.of_record(record, folder, machinery_of(record, find_control()))


def take_down(fleet: Fleet, state_dir: Path | None = None, *, origin: str = "") -> None:
    """End a fleet that stays up, and all that runs on it. Raises FleetError when it is not up."""
    folder = state_dir or default_folder()
    record = find(fleet, folder, origin=origin)
    swept = sweep(folder)
    if record is None and not swept:
        raise FleetError(f"fleet {fleet.name!r} is not up; there is nothing to take down")
    if record is not None:
        destroy(record, folder)
