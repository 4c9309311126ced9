"""`edgeward merge`: trained models share layers, each as accurate as asked; `edgeward merge report` says how much.

edgeward merge cars/ people/ bikes/ --data cars=cars.npz --data people=people.npz --data bikes=bikes.npz -o merged
edgeward merge report cars/ people/ bikes/          # what could be saved at most, without training
edgeward merge report merged                        # what was saved
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeward.cli.group import usually
from edgeward.cli.output import note, percent, print_json, seconds, show_table
from edgeward.errors import ConfigError, StoreError, nearest
from edgeward.units import format_bytes

if TYPE_CHECKING:
    from edgeward.merge.manifest import Manifest
    from edgeward.merge.search import Step
    from edgeward.merge.task import Task
    from edgeward.zoo.network import Network

__all__ = ["app", "merge", "report"]

_SHARE = 0.2
"""Of the pictures, for validation, and again for the last gate where no --test is given."""

app = typer.Typer(
    cls=usually("models"),
    help="Let several trained models share layers: edgeward merge A B C --data ... -o merged.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("models")
def merge(
    models: Annotated[
        list[str],
        typer.Argument(help="Trained networks, folders by `edgeward prune` or NAME=SPEC.", show_default=False),
    ],
    data: Annotated[
        list[str], typer.Option(help="Labelled pictures for all, or MODEL=PICTURES for one; repeat for more.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the merged models; resumes what it holds.")
    ],
    test: Annotated[
        list[str] | None, typer.Option(help="Pictures for the last gate, as --data; else a fifth of --data.")
    ] = None,
    target: Annotated[float, typer.Option(help="Share of its own accuracy that every model keeps.")] = 0.95,
    seconds_: Annotated[float | None, typer.Option("--seconds", min=1, help="Stop searching after this long.")] = None,
    epochs: Annotated[int, typer.Option(help="Of joint training in each attempt, at most.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Of joint training.")] = 0.01,
    batch: Annotated[int, typer.Option(help="Pictures of each model in a step.")] = 32,
    align: Annotated[bool, typer.Option("--align", help="Bring channels into one order before sharing.")] = False,
    rank: Annotated[int, typer.Option(help="Of a private correction beside each shared layer; 0 for none.")] = 0,
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of one sample where it is not known, such as 1x8x8.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write MODEL.onnx files, for a box.")] = False,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads to train with.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of data and training.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Share layers between models, heaviest first, training them together, until no more can be shared."""
    import math

    import torch

    from edgeward.merge.search import SearchOptions, search
    from edgeward.merge.train import JointOptions

    torch.set_num_threads(threads)
    joint = JointOptions(epochs=epochs, learning_rate=learning_rate, batch=batch, seed=seed)
    options = SearchOptions(target, seconds_ or math.inf, align, rank, joint=joint)
    networks = _opened(models)
    tasks = _tasks(_shaped(networks, shape), data, test or [], seed)
    steps = []
    for step in search(tasks, output, options):
        steps.append(step)
        note(_told(step))
    if onnx:
        _exported(output, tasks)
    _reported(output, steps, json_)


@app.command()
def report(
    models: Annotated[list[str], typer.Argument(help="A folder of merged models, or networks that might be merged.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """What merging saved, or could save at most."""
    from edgeward.merge.manifest import names

    folder = Path(models[0])
    if len(models) == 1 and names(folder):
        _reported(folder, [], json_)
        return
    _possible(_opened(models), json_)


def _opened(specs: Sequence[str]) -> list[Network]:
    """The networks, each by a name of its own. Raises ConfigError for two of one name."""
    from dataclasses import replace

    from edgeward.zoo.network import open_network

    found: dict[str, Network] = {}
    for spec in specs:
        name, equals, rest = spec.partition("=")
        # NAME=SPEC, but not ARCHITECTURE=WEIGHTS: that has a file behind the sign.
        named = bool(equals) and not Path(rest).is_file()
        network = open_network(rest if named else spec)
        network = replace(network, name=name if named else Path(network.name).name)
        if network.name in found:
            raise ConfigError(f"two models are called {network.name!r}; write NAME={spec} to give it another name")
        found[network.name] = network
    return list(found.values())


def _shaped(networks: Sequence[Network], shape: str | None) -> list[Network]:
    """With the shape of a sample, for those that do not know it."""
    from dataclasses import replace

    from edgeward.zoo.network import example_of

    return [
        network
        if network.sample_shape is not None
        else replace(network, sample_shape=tuple(example_of(network, shape, 1).shape[1:]))
        for network in networks
    ]


def _tasks(networks: Sequence[Network], data: Sequence[str], test: Sequence[str], seed: int) -> list[Task]:
    """Each network with its own pictures."""
    from edgeward.merge.task import Task
    from edgeward.vision.labelled import load_labelled
    from edgeward.zoo.network import example_of

    names = [network.name for network in networks]
    places, tests = _by_model("--data", data, names), _by_model("--test", test, names)
    missing = [name for name in names if name not in places]
    if missing:
        raise ConfigError(
            f"no pictures for {missing[0]!r}; give --data {missing[0]}=FILE: every model is judged on its own"
        )
    tasks = []
    for network in networks:
        shape = tuple(example_of(network, None, 1).shape[1:])
        size = (shape[1], shape[2]) if len(shape) == 3 else None
        rest = load_labelled(places[network.name], size).fitted(shape)
        if network.name in tests:
            last = load_labelled(tests[network.name], size).fitted(shape)
        else:
            rest, last = rest.split(_SHARE, seed)
        train, validation = rest.split(_SHARE, seed + 1)
        tasks.append(Task(network, train, validation, last))
    return tasks


def _by_model(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """PATH for all, MODEL=PATH for one, by model. Raises ConfigError for a model that is not there."""
    found: dict[str, Path] = {}
    for text in sorted(given, key=lambda each: "=" in each):
        name, equals, path = text.partition("=")
        if not equals:
            found |= dict.fromkeys(names, Path(text))
        elif name in names:
            found[name] = Path(path)
        else:
            raise ConfigError(f"{option} {text}: no model {name!r}; {nearest(name, names)}")
    return found


def _told(step: Step) -> str:
    group, reached = step.group, ", ".join(f"{name} {percent(value)}" for name, value in step.accuracies.items())
    more = f" and {len(step.groups) - 1} lighter groups" if len(step.groups) > 1 else ""
    what = f"{group.signature} of {len(group.instances)} models{more}"
    return f"{seconds(step.seconds)}: {what}: {step.outcome}; {format_bytes(step.saved_bytes)} saved; {reached}"


def _exported(folder: Path, tasks: Sequence[Task]) -> None:
    import copy
    from functools import partial

    from edgeward.merge.export import export_onnx

    for task in tasks:
        export_onnx(folder, task.name, folder / f"{task.name}.onnx", partial(copy.deepcopy, task.module))


def _reported(folder: Path, steps: Sequence[Step], json_: bool) -> None:
    from edgeward.merge.manifest import names, read_manifest

    manifests = {name: read_manifest(folder, name) for name in names(folder)}
    sizes = _tensor_bytes(folder)
    lacking = {one for each in manifests.values() for one in each.parameters.values()} - sizes.keys()
    if lacking:
        raise StoreError(f"{folder} lacks {len(lacking)} tensors, such as {min(lacking)[:12]}; obtain the folder again")
    together = sum(sizes[one] for one in {each for one in manifests.values() for each in one.parameters.values()})
    apart = {name: sum(sizes[each] for each in one.parameters.values()) for name, one in manifests.items()}
    if json_:
        print_json(_record(manifests, apart, together, steps))
        return
    rows = []
    for name, one in manifests.items():
        others = {each for other, rest in manifests.items() if other != name for each in rest.parameters.values()}
        own = sum(sizes[each] for each in set(one.parameters.values()) - others)
        kept = "–" if one.accuracy is None or not one.unmerged else f"{one.accuracy / one.unmerged:.3f}"
        was, now = (percent(value) if value is not None else "–" for value in (one.unmerged, one.accuracy))
        rows.append([name, format_bytes(apart[name]), format_bytes(own), was, now, kept])
    show_table(str(folder), ["model", "bytes", "its own", "accuracy alone", "merged", "kept"], rows)
    total = sum(apart.values())
    note(f"{format_bytes(together)} instead of {format_bytes(total)}: {percent(1 - together / total)} saved")


def _record(
    manifests: Mapping[str, Manifest], apart: Mapping[str, int], together: int, steps: Sequence[Step]
) -> dict[str, Any]:
    return {
        "bytes": together,
        "bytes_apart": sum(apart.values()),
        "saved_share": 1 - together / sum(apart.values()),
        "models": {
            name: {"bytes": apart[name], "accuracy": one.accuracy, "unmerged": one.unmerged, "target": one.target}
            for name, one in manifests.items()
        },
        "steps": [
            {
                "seconds": step.seconds,
                "groups": [str(group.signature) for group in step.groups],
                "models": sorted({model for group in step.groups for model in group.models}),
                "outcome": step.outcome,
                "saved_bytes": step.saved_bytes,
                "accuracies": dict(step.accuracies),
            }
            for step in steps
        ],
    }


def _tensor_bytes(folder: Path) -> dict[str, int]:
    """Bytes of each tensor of a folder of merged models, by digest."""
    from edgeward.weights.store import read_header

    return {ref.digest: ref.nbytes for path in (folder / "tensors").glob("*.safetensors") for ref in read_header(path)}


def _possible(networks: Sequence[Network], json_: bool) -> None:
    """What sharing everything would save, and where the bytes are."""
    from edgeward.merge.groups import groups
    from edgeward.merge.potential import potential, power_law

    modules = {network.name: network.module for network in networks}
    most, found = potential(modules), groups(modules)
    laws = {name: power_law(module) for name, module in modules.items()}
    if json_:
        listed = [{"group": str(one.signature), "models": sorted(one.models), "saving": one.saving} for one in found]
        print_json({"bytes": most.bytes_total, "saved": most.bytes_saved, "share": most.share,
                    "groups": listed, "models": {name: vars(law) for name, law in laws.items()}})  # fmt: skip
        return
    rows = [[str(one.signature), ", ".join(sorted(one.models)), format_bytes(one.saving)] for one in found[:12]]
    show_table("Heaviest layers in common", ["layer", "models", "saves"], rows)
    spread = [
        [name, str(law.layers), format_bytes(law.bytes), percent(law.heaviest), percent(law.top), str(law.needed60),
         str(law.needed80)]
        for name, law in laws.items()
    ]  # fmt: skip
    columns = ["model", "layers", "bytes", "heaviest", "top 15 %", "60 % in", "80 % in"]
    show_table("Where the bytes are", columns, spread)
    share = percent(most.share)
    note(f"{format_bytes(most.bytes_saved)} of {format_bytes(most.bytes_total)} could be saved at most: {share}")
