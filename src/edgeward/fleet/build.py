"""Building an emulated fleet and removing it again, whoever left it.

    record, machinery = build(fleet, folder, "auto", (identity_of("any text"), Process.current(), ""))
    destroy(record, folder)
    sweep(folder)                     # what dead owners left behind

The record is on disk before the first thing is created, and goes after the last one is removed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from edgeward.errors import FleetError
from edgeward.fleet.cgroup import Control, end_group, find_control
from edgeward.fleet.dutycycle import kill_family
from edgeward.fleet.fleet import Fleet
from edgeward.fleet.layout import Layout
from edgeward.fleet.machinery import KernelMachinery, Machinery, ShaperMachinery
from edgeward.fleet.netns import delete_namespace, tool
from edgeward.fleet.state import Process, Record, boot_id, forget, read_all, write_new

__all__ = ["Mode", "build", "destroy", "identity_of", "kernel_obstacle", "machinery_of", "sweep"]

Mode = Literal["auto", "kernel", "shaper"]


def kernel_obstacle() -> str:
    """Why the kernel cannot emulate a fleet here; empty when it can, as far as can be seen without trying."""
    if os.name != "posix" or os.geteuid() != 0:
        return "this user is not root"
    if find_control() is None:
        return "the control groups 'cpu' and 'memory' are not mounted"
    try:
        tool("ip"), tool("tc")
    except FleetError as error:
        return str(error)
    return ""


def sweep(folder: Path) -> int:
    """Remove what dead owners left behind; how many fleets that were."""
    left = [record for record in read_all(folder) if record.abandoned]
    for record in left:
        destroy(record, folder)
    return len(left)


def build(
    fleet: Fleet, folder: Path, mode: Mode, identity: tuple[str, Process | None, str]
) -> tuple[Record, Machinery]:
    """Write the record, then create the devices. identity: a name, the owner if there is one, the fleet's file.

    Raises FleetError, with nothing left behind.
    """
    obstacle = kernel_obstacle() if mode != "shaper" else ""
    if mode == "kernel" and obstacle:
        raise FleetError(f"the kernel cannot emulate a fleet here: {obstacle}; use mode='shaper'")
    control = None if mode == "shaper" or obstacle else find_control()
    record = _plan(fleet, control, identity)
    write_new(folder, record)
    machinery = machinery_of(record, control)
    try:
        machinery.create()
    except BaseException as error:
        destroy(record, folder)
        # Root inside a container may lack the right all the same: then do what works without it.
        if mode == "auto" and isinstance(error, FleetError):
            return build(fleet, folder, "shaper", identity)
        raise
    return record, machinery


def _plan(fleet: Fleet, control: Control | None, identity: tuple[str, Process | None, str]) -> Record:
    name, owner, origin = identity
    record = Record(
        identity=name,
        mode="shaper" if control is None else "kernel",
        owner=owner,
        boot=boot_id(),
        fleet=fleet,
        origin=origin,
    )
    if control is None:
        return record
    layout = Layout.of(fleet, name)
    groups = KernelMachinery(fleet, layout, control).groups.values()
    folders = tuple(folder for group in groups for folder in group.folders)
    return record.model_copy(update={"namespaces": tuple(layout.namespaces.values()), "groups": folders})


def machinery_of(record: Record, control: Control | None) -> Machinery:
    """What acts on the fleet of a record. Raises FleetError when the kernel's part is not there."""
    layout = Layout.of(record.fleet, record.identity)
    if record.mode == "shaper":
        return ShaperMachinery(record.fleet, layout)
    if control is None:
        raise FleetError("the control groups of the fleet are gone; run 'edgeward fleet down' with its file")
    return KernelMachinery(record.fleet, layout, control)


def destroy(record: Record, folder: Path) -> None:
    """Remove what a record lists, then the record. Can be repeated after a failure."""
    if record.this_boot:
        for process in record.processes:
            if process.alive:
                kill_family(process.pid)
        for group in record.groups:
            end_group(group)
        for namespace in record.namespaces:
            delete_namespace(namespace)
    forget(folder, record)


def identity_of(text: str) -> str:
    """A short name that differs where `text` does."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
