"""`edgeward fleet`: look at a fleet, and emulate it on this machine.

edgeward fleet show fleet.toml
edgeward fleet up fleet.toml
edgeward fleet exec fleet.toml pi -- python worker.py
edgeward fleet down fleet.toml
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeward.cli.output import note, print_json, seconds, show_table
from edgeward.errors import FleetError

__all__ = ["app"]

app = typer.Typer(
    help="Look at a fleet of devices, and emulate it on this machine.", no_args_is_help=True, rich_markup_mode=None
)

_MEGABYTE = 1_000_000


class Means(StrEnum):
    """By which means a fleet is emulated."""

    AUTO = "auto"
    KERNEL = "kernel"
    SHAPER = "shaper"


FleetFile = Annotated[Path, typer.Argument(help="The fleet's TOML file.", show_default=False)]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Where records of emulated fleets are.", show_default=False)
]


@app.command()
def up(
    file: FleetFile,
    mode: Annotated[
        Means, typer.Option(help="kernel: namespaces and control groups, needs root; shaper: needs nothing.")
    ] = Means.AUTO,
    state_dir: StateDir = None,
) -> None:
    """Emulate a fleet on this machine until `edgeward fleet down`."""
    from edgeward.fleet.build import kernel_obstacle
    from edgeward.fleet.file import load_fleet
    from edgeward.fleet.standing import bring_up

    fleet = load_fleet(file)
    record = bring_up(fleet, state_dir, mode=mode.value, origin=str(file.resolve()))
    if mode is Means.AUTO and record.mode == "shaper":
        note(f"without the kernel ({kernel_obstacle() or 'it refused'}): processes are slowed, senders shape links")
    if any(link.trace is not None for link in fleet.links):
        note("traces play only while a program holds the fleet; until then links have their 'bandwidth'")
    note(f"fleet {fleet.name!r} is up ({record.mode}); run: edgeward fleet exec {file} {fleet.source} -- COMMAND")


@app.command()
def down(file: FleetFile, state_dir: StateDir = None) -> None:
    """End an emulated fleet and all that runs on it, and remove what killed programs left behind."""
    from edgeward.fleet.file import load_fleet
    from edgeward.fleet.standing import take_down

    fleet = load_fleet(file)
    take_down(fleet, state_dir, origin=str(file.resolve()))
    note(f"fleet {fleet.name!r} is down")


@app.command("exec")
def exec_(
    file: FleetFile,
    device: Annotated[str, typer.Argument(help="The device to run on.", show_default=False)],
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after --.", show_default=False)],
    replica: Annotated[int, typer.Option(help="Which of the device's machines.")] = 0,
    state_dir: StateDir = None,
) -> None:
    """Run a command on a device of a fleet that is up, and end with its exit code."""
    from edgeward.fleet.file import load_fleet
    from edgeward.fleet.standing import attach

    with attach(load_fleet(file), state_dir, origin=str(file.resolve())) as emulated:
        code = emulated.popen(device, command, replica=replica).wait()
    raise typer.Exit(code if code >= 0 else 128 - code)


@app.command()
def show(
    file: FleetFile,
    check: Annotated[bool, typer.Option("--check", help="Fail when a device with an address is unreachable.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Show devices and links, whether the fleet is emulated, and whether its addresses answer."""
    from edgeward.fleet.file import load_fleet
    from edgeward.fleet.reach import unreachable
    from edgeward.fleet.standing import find

    fleet = load_fleet(file)
    record = find(fleet, state_dir, origin=str(file.resolve()))
    silent = unreachable(fleet)
    if json_:
        print_json(_as_json(fleet, record.mode if record else None, silent))
    else:
        _as_tables(fleet, silent)
        note(f"emulated here: {record.mode if record else 'no'}")
    if silent and check:
        reasons = "; ".join(f"{name!r} at {fleet.device(name).address}: {why}" for name, why in silent.items())
        raise FleetError(f"cannot reach {reasons}; start the host there, or correct 'address'")


def _as_json(fleet: Any, mode: str | None, silent: dict[str, str]) -> dict[str, Any]:
    ways = [
        {"source": a, "target": b, "seconds_per_megabyte": link.seconds(_MEGABYTE)}
        | link.model_dump(mode="json", exclude={"between", "source", "target"})
        for (a, b), link in fleet.ways().items()
    ]
    record: dict[str, Any] = fleet.model_dump(mode="json", exclude={"links"})
    return record | {"links": ways, "emulated": mode, "unreachable": silent}


def _as_tables(fleet: Any, silent: dict[str, str]) -> None:
    from edgeward.units import format_bytes, format_rate

    devices = [
        [
            *(device.name, device.tier, f"{100 * device.compute:g} %", device.threads, device.count),
            *("–" if device.memory is None else format_bytes(device.memory), f"{device.power:g} W", device.backend),
            f"{device.address}: {silent.get(device.name) or 'reachable'}" if device.address else "–",
        ]
        for device in fleet.devices
    ]
    columns = ["device", "tier", "compute", "threads", "count", "memory", "power", "backend", "address"]
    show_table(f"Devices of {fleet.name!r}; inputs arise at {fleet.source!r}", columns, devices)
    links = [
        [
            f"{a} → {b}",
            format_rate(link.bandwidth),
            *(seconds(value) for value in (link.latency, link.jitter, link.seconds(_MEGABYTE))),
            "–" if link.trace is None else link.trace.name,
        ]
        for (a, b), link in fleet.ways().items()
    ]
    show_table("Links", ["link", "bandwidth", "latency", "jitter", "1 MB takes", "trace"], links)
    if fleet.zones:
        zones = [[zone.name, ", ".join(zone.devices), "yes" if zone.private else "no"] for zone in fleet.zones]
        show_table("Zones", ["zone", "devices", "raw data stays"], zones)
