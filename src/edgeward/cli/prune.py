"""`edgeward prune`: a smaller network that meets a target, its measured figures, and a folder that reloads it.

edgeward prune cifar-resnet20 --target "latency<=0.5x" --weights resnet20.th --data train.npz --epochs 3 -o small
edgeward prune portfolio cifar-resnet20 --data train.npz --keep 0.5,0.1,0.02 -o variants
edgeward prune measure dense/model.onnx small/model.onnx
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeward.cli.group import usually
from edgeward.cli.measure import measure
from edgeward.cli.output import note, percent, print_json, seconds, show_table
from edgeward.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeward.profile.profile import Profile
    from edgeward.profile.variant import Portfolio
    from edgeward.prune.goal import Goal
    from edgeward.prune.makers import Sets
    from edgeward.prune.shrink import Shrunk
    from edgeward.prune.sites import Site
    from edgeward.prune.training import Progress
    from edgeward.zoo.network import Network

__all__ = ["app", "portfolio", "prune"]

_TEST_SHARE = 0.2


app = typer.Typer(
    cls=usually("model"),
    help="Make a network smaller and faster: edgeward prune MODEL --target TARGET.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(measure)


@app.command("model")
def prune(
    model: Annotated[str, typer.Argument(help="A reference network, file.py:NAME, config.json, or a pruned folder.")],
    target: Annotated[
        list[str], typer.Option(help='What to reach, such as "latency<=12ms@pi", "params<=0.1x"; repeat for more.')
    ],
    method: Annotated[
        str, typer.Option(help="magnitude, snip, synflow, grasp, drive, random or reconvene.")
    ] = "magnitude",
    structure: Annotated[str, typer.Option(help="channels, or weights (mask, train, convert exactly).")] = "channels",
    data: Annotated[
        Path | None, typer.Option(help="Labelled pictures: folder, .npz or IDX file.", show_default=False)
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Pictures to judge with; else a fifth of --data.", show_default=False)
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights of the network.", show_default=False)] = None,
    epochs: Annotated[int, typer.Option(help="Of tuning afterwards.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of the first step of tuning.")] = 0.01,
    allocation: Annotated[str, typer.Option(help="How layers share the loss: lean, uniform or global.")] = "lean",
    multiple: Annotated[int, typer.Option(help="Round large widths to multiples of this.")] = 8,
    fleet: Annotated[
        Path | None, typer.Option(help="An emulated fleet that is up: measure there.", show_default=False)
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Profile of this network: scale to its devices.", show_default=False)
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of one sample, such as 3x224x224.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(help="Of each timing.")] = 9,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads that networks are timed with.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of samples, tuning and new weights.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the smaller network.", show_default=False)
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a network smaller until it meets a target, on figures that are measured, and tune it."""
    from edgeward.prune.goal import parse_goal

    goals = [parse_goal(text) for text in target]

    import torch

    from edgeward.prune.makers import ShrinkOptions
    from edgeward.prune.shrink import shrink
    from edgeward.prune.training import TrainOptions
    from edgeward.zoo.artefact import check_place
    from edgeward.zoo.network import example_of, open_network
    from edgeward.zoo.pretrained import load_pretrained

    torch.set_num_threads(threads)
    if output is not None:
        check_place(output)
    if weights is not None and method == "reconvene":
        raise ConfigError("reconvene initialises layers anew: trained --weights would be lost; choose another --method")
    network = open_network(model)
    example = example_of(network, shape, 1)
    if weights is not None and load_pretrained(network.module, weights) == "order":
        note(f"{weights.name} names its tensors otherwise; taken in order: see that the accuracy is as published")
    sets = _sets(data, test, tuple(example.shape[1:]), seed)
    with _progress() as progress:
        options = ShrinkOptions(
            method=method, structure=structure, allocation=allocation, multiple=multiple, rounds=rounds, seed=seed,
            tuning=TrainOptions(epochs=epochs, learning_rate=learning_rate, augment=True, seed=seed),
            sites=_sites(goals, fleet, _profile(profile, network.module, example), threads), progress=progress,
        )  # fmt: skip
        shrunk = shrink(network.module, example, goals, options, sets)
    report = {"model": network.name, "method": method, "structure": structure, "targets": list(map(str, goals))}
    report |= shrunk.report()
    if output is not None:
        _save(shrunk, network, tuple(example.shape[1:]), output, report)
    if json_:
        print_json(report)
    else:
        _show(shrunk, f"{network.name}, {method}, {', '.join(map(str, goals))}")
    if output is not None:
        like = f"a network like any: edgeward profile {output}, edgeward prune {output} ..."
        own = f"of your own code: load_network(Path({str(output)!r}), factory) opens it"
        note(f"written to {output}; it is {own if network.recipe is None else like}")


@app.command()
def portfolio(
    model: Annotated[str, typer.Argument(help="A network as for `edgeward prune MODEL`.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Labelled pictures to train with: folder, .npz or IDX file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for portfolio.json and the variants.")],
    test: Annotated[
        Path | None, typer.Option(help="Pictures to judge with; else a fifth of --data.", show_default=False)
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights to begin with.", show_default=False)] = None,
    keep: Annotated[str, typer.Option(help="Falling shares that the levels keep.")] = "0.5,0.25,0.1,0.05,0.02",
    structure: Annotated[str, typer.Option(help="weights (converted exactly) or channels.")] = "weights",
    epochs: Annotated[int, typer.Option(help="Of every level.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Of the first step of every level.")] = 0.1,
    rewind: Annotated[int, typer.Option(help="The step that weights go back to.")] = 0,
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of one sample, such as 3x32x32.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Keep variants that others beat, too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of training.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print the portfolio as JSON.")] = False,
) -> None:
    """Train variants of several sizes, convert and measure them, and keep those that none beats. Resumes."""
    import shutil

    import torch

    from edgeward.prune.campaign import CampaignOptions, campaign
    from edgeward.prune.training import TrainOptions
    from edgeward.zoo.network import example_of, open_network
    from edgeward.zoo.pretrained import load_pretrained

    try:
        keeps = tuple(float(part) for part in keep.split(","))
    except ValueError as error:
        raise ConfigError(f"--keep {keep}: write falling shares like 0.5,0.1,0.02") from error
    options = CampaignOptions(
        keeps, structure, TrainOptions(epochs=epochs, learning_rate=learning_rate, augment=True, seed=seed), rewind,
        all=all_, work=output / ".work",
    )  # fmt: skip
    torch.set_num_threads(1)
    network = open_network(model)
    example = example_of(network, shape, 1)
    if weights is not None:
        load_pretrained(network.module, weights)
    sets = _sets(data, test, tuple(example.shape[1:]), seed)
    assert sets is not None
    with _progress() as progress:
        made = campaign(network, example, sets, replace(options, progress=progress), output)
    shutil.rmtree(output / ".work", ignore_errors=True)
    if json_:
        print_json(made.model_dump(mode="json"))
        return
    _show_portfolio(made)
    note(f"written to {output}; in a box: models: - {{name: ..., portfolio: {output}}}")


def _show_portfolio(made: Portfolio) -> None:
    from edgeward.prune.goal import format_figure

    rows = []
    for one in made.variants:
        figure = next(iter(one.latency.values()))
        right = "–" if one.accuracy is None else f"{percent(one.accuracy.value)} (± {100 * one.accuracy.error:.1f})"
        sizes = [
            format_figure("params", one.parameters),
            format_figure("macs", one.macs),
            format_figure("size", one.memory),
        ]
        rows.append([one.name, right, seconds(figure.median), *sizes])
    show_table(made.model, ["variant", "accuracy", "latency", "parameters", "MACs", "memory"], rows)


def _sets(data: Path | None, test: Path | None, shape: tuple[int, ...], seed: int) -> Sets | None:
    from edgeward.prune.makers import Sets
    from edgeward.vision.labelled import load_labelled

    if data is None:
        if test is not None:
            raise ConfigError("--test needs --data, the pictures to score and tune with")
        return None
    size = (shape[1], shape[2]) if len(shape) == 3 else None
    parts = [load_labelled(path, size).fitted(shape) for path in (data, test) if path is not None]
    return Sets(*parts) if len(parts) == 2 else Sets(*parts[0].split(_TEST_SHARE, seed))


def _profile(file: Path | None, module: nn.Module, example: Tensor) -> Profile | None:
    """The stored profile, which must be of this very network. Raises ConfigError when it is another's."""
    from edgeward.graph.chain import cut
    from edgeward.profile.file import load_profile

    if file is None:
        return None
    found = load_profile(file)
    if found.fingerprint != cut(module, example).fingerprint:
        raise ConfigError(
            f"{file} is of {found.model!r} or of another input; profile this network: edgeward profile ..."
        )
    if any(times.batch != 1 for times in found.times.values()):
        raise ConfigError(f"{file} was measured with several samples at once; measure with --batch 1")
    return found


def _sites(goals: list[Goal], fleet: Path | None, profile: Profile | None, threads: int) -> dict[str, Site]:
    """Where each device of the goals is timed."""
    from edgeward.prune.sites import Emulated, Here, Scaled

    found: dict[str, Site] = {"": Here(threads)}
    for name in {goal.device for goal in goals} - {""}:
        if fleet is not None:
            found[name] = Emulated(fleet, name, threads)
        elif profile is not None:
            found[name] = Scaled(profile, name, threads)
    return found


def _save(shrunk: Shrunk, network: Network, shape: tuple[int, ...], output: Path, report: dict[str, Any]) -> None:
    import torch

    from edgeward.graph.onnx import export_module
    from edgeward.zoo.artefact import Extras, save_network

    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        onnx.write_bytes(export_module(shrunk.module, torch.zeros(1, *shape)))
        small = replace(network, module=shrunk.module, sample_shape=shape)
        save_network(small, output, shrunk.edits, Extras(report, onnx))


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking at the network", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


def _show(shrunk: Shrunk, title: str) -> None:
    from edgeward.prune.goal import format_figure

    rows: list[list[str]] = []
    for metric, what in (
        ("params", "parameters"),
        ("macs", "multiply-accumulates"),
        ("size", "bytes"),
        ("memory", "peak memory"),
    ):
        before, after = shrunk.before[metric], shrunk.after[metric]
        rows.append([what, format_figure(metric, before), format_figure(metric, after), f"{after / before:.3f}x"])
    for name, (before_, after_, speedup) in shrunk.latency.items():
        where = f"latency{f' on {name}' if name else ''}"
        spread = f"{seconds(after_.median)} ({seconds(after_.low)} to {seconds(after_.high)})"
        rows.append([where, seconds(before_.median), spread, str(speedup)])
    if shrunk.accuracies is not None and shrunk.drop is not None:
        old, new = shrunk.accuracies
        change = f"{-100 * shrunk.drop.share:+.1f} points ({100 * shrunk.drop.error:.1f} standard error)"
        rows.append(["accuracy", percent(old), percent(new), change])
    show_table(title, ["", "before", "after", ""], rows)
    for text in dict.fromkeys([*shrunk.how.values(), *shrunk.notes]):
        note(text)
