"""`edgeward profile`: what every block of a network costs on this device.

edgeward profile resnet50 --device pi -o resnet50.json
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeward.cli.output import note, print_json, seconds, show_table
from edgeward.errors import ConfigError
from edgeward.units import format_bytes

if TYPE_CHECKING:
    from edgeward.profile.profile import Profile
    from edgeward.profile.profiler import Progress

__all__ = ["profile"]

GRANULARITIES: dict[str, Literal["layer", "op"]] = {"layer": "layer", "op": "op"}
_GAP = 0.1


def profile(
    model: Annotated[str, typer.Argument(help="A reference network, file.py:NAME, or a transformers config.json.")],
    device: Annotated[str, typer.Option(help="The name this device has in your fleet file.")] = "local",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Profile to write or to add this device to.")
    ] = None,
    backend: Annotated[str, typer.Option(help="torch or onnxruntime.")] = "onnxruntime",
    shape: Annotated[str | None, typer.Option("--input", help="Shape of one sample, such as 3x224x224.")] = None,
    batch: Annotated[int, typer.Option(help="Samples per call.")] = 1,
    threads: Annotated[int, typer.Option(help="Compute threads.")] = 1,
    repeats: Annotated[int, typer.Option(help="Rounds over the whole network.")] = 10,
    cuts: Annotated[
        str, typer.Option(help="layer: behind layers that compute; op: wherever a cut is possible.")
    ] = "layer",
    max_tensors: Annotated[int, typer.Option(help="Tensors that a cut may ship.")] = 1,
    leaf: Annotated[list[str] | None, typer.Option(help="A module to keep whole, by its path.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Cut a network into blocks and measure each of them here."""
    from edgeward.profile.profiler import ProfileOptions, as_profile, profile_chain

    options = ProfileOptions(backend, threads, repeats)
    if cuts not in GRANULARITIES:
        raise ConfigError(f"--cuts {cuts}: choose 'layer' or 'op'")
    known = _known(output, device)

    from edgeward.graph.chain import CutOptions, cut
    from edgeward.profile.file import save_profile
    from edgeward.zoo.network import example_of, open_network

    network = open_network(model)
    example = example_of(network, shape, batch)
    chain = cut(network.module, example, options=CutOptions(GRANULARITIES[cuts], max_tensors, tuple(leaf or ())))
    found = as_profile(chain, network.name, tuple(example.shape))
    if known is not None:
        found = known.merge(found)  # refuses now what would be refused after minutes of measuring
    partial = None if output is None else output.with_name(f".{output.name}.{device}.partial")
    with _progress() as progress:
        times = profile_chain(chain, options, progress, partial).model_copy(update={"batch": batch})
    found = found.model_copy(update={"times": found.times | {device: times}})
    if output is not None:
        save_profile(found, output)
    if json_:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found, device)
    gap = sum(times.seconds) / times.whole - 1 if times.whole else 0.0
    if abs(gap) > _GAP:
        remedy = "plans correct for what joining was measured to change" if times.joined else "treat plans with care"
        note(f"the blocks run one by one take {100 * gap:+.0f} % of the whole's {seconds(times.whole)}; {remedy}")
    for text in times.notes:
        note(text)
    if output is not None:
        note(f"written to {output}; next: edgeward plan {output} fleet.toml")


def _known(output: Path | None, device: str) -> Profile | None:
    from edgeward.profile.file import load_profile

    if not device or any(mark in device for mark in " /:>,"):
        raise ConfigError(f"--device {device!r}: a device's name has no blanks and none of / : > ,")
    return load_profile(output) if output is not None and output.exists() else None


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _show(profile: Profile, device: str) -> None:
    times = profile.times[device]
    rows = [
        [
            index,
            block.name,
            f"{block.macs / 1e6:.1f} M",
            format_bytes(block.parameter_bytes),
            format_bytes(block.output_bytes),
            seconds(times.seconds[index]),
            f"{seconds(times.low[index])} to {seconds(times.high[index])}",
            "yes" if block.reveals_input else "",
        ]
        for index, block in enumerate(profile.blocks)
    ]
    columns = ["#", "block", "MACs", "weights", "output", "time", "10 to 90 %", "reveals input"]
    title = f"{profile.model} on {device} ({times.backend}, {times.threads} thread, batch {times.batch})"
    show_table(title, columns, rows)
    total = sum(block.macs for block in profile.blocks)
    note(
        f"whole: {seconds(times.whole)}; {total / 1e6:.0f} M multiply-accumulates, "
        f"{sum(block.parameters for block in profile.blocks) / 1e6:.2f} M parameters, "
        f"{format_bytes(times.resident_bytes or 0)} of memory measured"
    )
