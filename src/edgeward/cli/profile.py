"""`edgeward profile`: what every block of a network costs on this device.

edgeward profile resnet50 --device pi -o resnet50.json --packing default
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
    from edgeward.profile.packing import PackingTimes
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
    packing: Annotated[
        list[str] | None,
        typer.Option(help="A way to pack what crosses links, such as int8+zstd, or 'default'."),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Inputs to measure packings on: a .npy file of them, or a folder of such files.")
    ] = None,
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
    from edgeward.profile.packings import PackingOptions, load_samples, profile_packings
    from edgeward.zoo.network import example_of, open_network

    network = open_network(model)
    example = example_of(network, shape, batch)
    chain = cut(network.module, example, options=CutOptions(GRANULARITIES[cuts], max_tensors, tuple(leaf or ())))
    found = as_profile(chain, network.name, tuple(example.shape))
    if known is not None:
        found = known.merge(found)  # refuses now what would be refused after minutes of measuring
    if samples is not None and not packing:
        raise ConfigError(f"--samples {samples} is for measuring packings; add --packing default")
    inputs = None if samples is None else tuple(load_samples(samples, chain))
    packings = PackingOptions(tuple(packing or ()), inputs, threads=threads)
    packings.expanded()  # refuses unknown ones, too
    partial, packed = (
        None if output is None else output.with_name(f".{output.name}.{device}.{kind}")
        for kind in ("partial", "packings.partial")
    )
    with _progress() as progress:
        costs, packing_times = profile_packings(chain, packings, progress, packed)
        times = profile_chain(chain, options, progress, partial).model_copy(update={"batch": batch})
    times = times.model_copy(update={"packings": _earlier(known, device) | packing_times})
    found = found.merge(found.model_copy(update={"times": {device: times}, "packings": costs}))
    if output is not None:
        save_profile(found, output)
    if packed is not None:
        packed.unlink(missing_ok=True)
    if json_:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found, device)
        if costs:
            _show_packings(found, device, list(costs))
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


def _earlier(known: Profile | None, device: str) -> dict[str, PackingTimes]:
    """What this device was measured to take for packings before."""
    return {} if known is None or device not in known.times else known.times[device].packings


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


def _show_packings(profile: Profile, device: str, names: list[str]) -> None:
    plain = [profile.input_bytes, *(block.output_bytes for block in profile.blocks)]
    rows = []
    for name in names:
        costs, times = profile.packings[name], profile.times[device].packings[name]
        fits = [(size, before) for size, before in zip(costs.bytes, plain, strict=True) if size is not None]
        before = sum(size for _, size in fits)
        lossless = bool(fits) and all(drop == 0 for drop, size in zip(costs.drop, costs.bytes, strict=True) if size)
        rows.append(
            [
                name,
                f"{len(fits)} of {len(plain)}",
                f"{100 * sum(size for size, _ in fits) / before:.1f} %" if before else "–",
                _mean(times.pack),
                _mean(times.unpack),
                "nothing" if lossless else "known" if None not in costs.drop else "not measured",
            ]
        )
    show_table("Packings", ["packing", "fits", "bytes left", "pack, mean", "unpack, mean", "loses"], rows)


def _mean(values: tuple[float | None, ...]) -> str:
    known = [one for one in values if one is not None]
    return seconds(sum(known) / len(known)) if known else "–"
