"""`edgeward split`: run a plan on its hosts, and fine-tune a network for a transfer layer.

edgeward split run plan.json --input street.mp4 --fleet fleet.toml --profile resnet50.json
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from edgeward.cli.output import note, print_json, seconds, show_table
from edgeward.cli.tune import tune
from edgeward.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from edgeward.fleet.fleet import Fleet
    from edgeward.split.crew import CrewOptions
    from edgeward.split.deployment import Result

__all__ = ["app", "run"]

app = typer.Typer(
    help="Run a plan on its hosts; fit a network to its cut.", no_args_is_help=True, rich_markup_mode=None
)
_BEST = 5

app.command("tune")(tune)


@app.command()
def run(
    plan: Annotated[Path, typer.Argument(help="A plan that `edgeward plan -o` wrote.", show_default=False)],
    input_: Annotated[str, typer.Option("--input", help="A video, camera URL, folder of images, or .npy file.")],
    fleet: Annotated[
        Path | None, typer.Option(help="The fleet: addresses of nodes. Without it, all runs here.", show_default=False)
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="The profile: with it, plans follow what is measured.", show_default=False)
    ] = None,
    network: Annotated[str, typer.Option(help="The network, when the plan's name does not find it.")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Weights: safetensors, or a torch state_dict.", show_default=False)
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Shape of one sample, such as 3x224x224.", show_default=False)
    ] = None,
    normalise: Annotated[str, typer.Option(help="Of pictures: none (0..1) or imagenet.")] = "none",
    limit: Annotated[int | None, typer.Option(min=1, help="Inputs to run at most.", show_default=False)] = None,
    depth: Annotated[int, typer.Option(min=1, max=256, help="Requests under way at once.")] = 4,
    adapt: Annotated[bool, typer.Option(help="Plan anew when links or hosts change speed (needs --profile).")] = True,
    certs: Annotated[Path | None, typer.Option(help="Folder of certificates.", show_default=False)] = None,
    discover: Annotated[
        bool, typer.Option("--discover", help="Look by multicast for nodes of devices without an address.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a JSON line per result.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run a plan on its hosts: results in order, another plan when links or hosts change, none lost when one dies."""
    from edgeward.fleet.file import load_fleet
    from edgeward.plan.plan import load_plan
    from edgeward.profile.file import load_profile
    from edgeward.split.deployment import Deployment
    from edgeward.split.inputs import open_inputs
    from edgeward.split.network import open_split
    from edgeward.split.pilot import PilotOptions
    from edgeward.wire.pages import keep_freed_memory

    keep_freed_memory()
    chosen = load_plan(plan)
    around = load_fleet(fleet) if fleet is not None else None
    known = load_profile(profile) if profile is not None else None
    opened = open_split(chosen, network, weights, shape)
    example = opened.chain.example_inputs[0]
    inputs = open_inputs(input_, tuple(example.shape), normalise, limit, str(example.dtype).removeprefix("torch."))
    options = PilotOptions(depth=depth, adapt=adapt, note=note)
    crew = crew_options(around, fleet, certs)
    if discover:
        around = _discovered(around, crew)
    with (
        _lines(output) as write,
        Deployment(chosen, opened, fleet=around, profile=known, crew=crew, pilot=options) as deployment,
    ):
        from edgeward.split.summary import Tally

        tally = Tally()
        with _progress(limit) as advance:
            for result in deployment.stream(inputs):
                tally.add(result)
                write(_record(result))
                advance()
        summary = tally.summary(deployment.crew.fleet.source)
    _show(summary, as_json)


def crew_options(fleet: Fleet | None, file: Path | None, certs: Path | None) -> CrewOptions:
    """How to reach a fleet's nodes: by their addresses, or through an emulation of the fleet that is up here."""
    from edgeward.fleet.standing import find
    from edgeward.split.crew import CrewOptions, emulated_endpoints

    tls = None
    if certs is not None:
        from edgeward.wire.certificates import tls_files

        tls = tls_files(certs, fleet.source if fleet is not None else "node")
    if fleet is None or file is None:
        return CrewOptions(tls)
    record = find(fleet, origin=str(file.resolve()))
    if record is None or record.mode != "kernel":
        return CrewOptions(tls)
    remote = frozenset(device.name for device in fleet.devices) - {fleet.source}
    return CrewOptions(tls, emulated_endpoints(record), remote)


def _discovered(fleet: Fleet | None, crew: CrewOptions) -> Fleet:
    """The fleet with the addresses of the nodes that announce themselves."""
    from edgeward.split.crew import with_addresses
    from edgeward.wire.discovery import discover

    if fleet is None:
        raise ConfigError("--discover looks for the devices of a fleet; add --fleet FILE")
    found = discover(tls=crew.tls)
    for one in found:
        note(f"node {one.name!r} is at {one.endpoint}" if one.name else one.reason)
    return with_addresses(fleet, found)


def _record(result: Result) -> dict[str, Any]:
    """What a line of the output says: the best classes of a score vector, else shapes."""
    record: dict[str, Any] = {
        "index": result.index,
        "seconds": round(result.seconds, 6),
        "plan": result.plan.describe(),
        "attempts": result.attempts,
    }
    first = result.outputs[0]
    if first.ndim == 2 and first.shape[0] == 1 and first.dtype.kind == "f":
        order = first[0].argsort()[::-1][:_BEST]
        record["best"] = [{"class": int(one), "score": round(float(first[0, one]), 5)} for one in order]
    else:
        record["outputs"] = [{"shape": list(one.shape), "dtype": str(one.dtype)} for one in result.outputs]
    return record


@contextlib.contextmanager
def _lines(output: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes a JSON line; each line is whole on the disk before the next request ends."""
    if output is None:
        yield lambda record: None
        return
    try:
        with output.open("w", encoding="utf-8") as file:
            yield lambda record: _write(file, output, record)
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror}; choose another --output") from error


def _write(file: TextIO, output: Path, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()


@contextlib.contextmanager
def _progress(limit: int | None) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("running"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("running", total=limit)
        yield lambda: bar.advance(task)


def _show(summary: Any, as_json: bool) -> None:
    if as_json:
        print_json(summary.record())
        return
    if not summary.count:
        raise ConfigError("the input held nothing to run; check --input and --limit")
    for each in summary.plans:
        rows = [
            [row.name, seconds(row.predicted), seconds(row.measured), _ratio(row), row.bytes or "", row.count]
            for row in each.steps
        ]
        columns = ["step", "predicted", "measured", "ratio", "bytes", "times"]
        show_table(f"{each.plan.describe()} ({each.count} results)", columns, rows)
    note(
        f"{summary.count} results in {seconds(summary.seconds)}: {summary.rate:.3g} a second, median latency "
        f"{seconds(summary.latency)}; {summary.again} ran more than once"
    )


def _ratio(row: Any) -> str:
    return f"{row.measured / row.predicted:.2f}" if row.predicted > 0 else "–"
