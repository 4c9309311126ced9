"""`edgeward split tune`: make a network get along with a transfer layer at a cut.

edgeward split tune cifar-resnet20 --weights resnet20.th --after 3 --layer avg2-bilinear --data train.npz
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeward.cli.output import note, percent, print_json, show_table
from edgeward.errors import ConfigError, nearest
from edgeward.units import format_bytes

if TYPE_CHECKING:
    from edgeward.graph.chain import Chain
    from edgeward.split.training import Progress
    from edgeward.split.tune import Tuned, TuneOptions
    from edgeward.vision.labelled import Labelled

__all__ = ["tune"]

_TEST_SHARE = 0.2
_TRIED_ON = 500
NONE = "none"


def tune(
    model: Annotated[str, typer.Argument(help="A reference network, file.py:NAME, or a transformers config.json.")],
    data: Annotated[Path, typer.Option(help="Labelled pictures to tune with: folder, .npz or IDX file.")],
    after: Annotated[str, typer.Option(help="Cut behind this block (number or name), or best.")] = "best",
    layer: Annotated[
        list[str] | None, typer.Option(help="Transfer layer, or none to compare with; repeat for more.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Labelled pictures to judge with; else a fifth of --data.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights: .safetensors, .pt, .pth or .th.")] = None,
    epochs: Annotated[int, typer.Option(help="Times over the pictures.")] = 3,
    mode: Annotated[str, typer.Option(help="whole, edge (the device's part stays), or layer.")] = "whole",
    learning_rate: Annotated[float, typer.Option(help="Of the first step.")] = 0.01,
    codec: Annotated[str | None, typer.Option(help="Also with this codec behind the layer, such as int8.")] = None,
    seed: Annotated[int, typer.Option(help="Of held out pictures and of their order.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the tuned network.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Insert a transfer layer behind a block, tune the network with it, and say what it costs and saves."""
    names = list(dict.fromkeys(layer or ["avg2-bilinear"]))
    _check_names(names, after)

    import torch

    from edgeward.graph.chain import CutOptions, cut
    from edgeward.split.training import TuneOptions
    from edgeward.split.tuned import Base, save_tuned
    from edgeward.vision.labelled import load_labelled
    from edgeward.zoo.network import open_network
    from edgeward.zoo.pretrained import load_pretrained

    options = TuneOptions(epochs=epochs, mode=mode, learning_rate=learning_rate, seed=seed)
    if codec is not None:
        from edgeward.wire.codecs import parse_codec

        parse_codec(codec)  # refuses now what would be refused after minutes of tuning
    network = open_network(model)
    shape = network.sample_shape
    if shape is None or len(shape) != 3:
        raise ConfigError(
            f"{model} does not say that it takes pictures; set INPUT_SHAPE = (3, height, width) in its file"
        )
    parts = [load_labelled(path, (shape[1], shape[2])).fitted(shape) for path in (data, test) if path is not None]
    train, judged = parts if len(parts) == 2 else parts[0].split(_TEST_SHARE, seed)
    if weights is None:
        note(f"no --weights: {model} begins with {'its own' if ':' in model else 'random'} weights")
    elif load_pretrained(network.module, weights) == "order":
        note(f"{weights.name} names its tensors otherwise; taken in order: see that the accuracy is as published")
    cuts = CutOptions()
    chain = cut(network.module.eval(), torch.zeros(1, *shape), options=cuts)
    place = _place(chain, after, names, train)
    found: list[tuple[Tuned, dict[str, Any]]] = []
    for name in names:
        folder = output / name if output is not None and len(names) > 1 else output
        made = _tuned(chain, place, name, (train, judged), replace(options, checkpoint=_partial(folder)))
        found.append((made, _result(made, judged, codec)))
        if folder is not None:
            save_tuned(made, folder, Base(model, shape, cuts))
            (folder / _CHECKPOINT).unlink(missing_ok=True)
    if json_:
        print_json([result for _, result in found])
    else:
        _show(f"{model}, cut behind block {place} ({chain.costs[place].name}), {mode}", [one for _, one in found])
    if output is not None:
        note(f"written to {output}; from Python: edgeward.split.tuned.load_tuned({str(output)!r})")


_CHECKPOINT = ".checkpoint.safetensors"


def _partial(folder: Path | None) -> Path | None:
    return None if folder is None else folder / _CHECKPOINT


def _check_names(names: list[str], after: str) -> None:
    """Refuse unknown layers before anything is loaded."""
    from edgeward.graph.transfer import parse_transfer

    for name in names:
        if name != NONE:
            parse_transfer(name, 1)
    if after == "best" and names == [NONE]:
        raise ConfigError("--after best needs a --layer to look for; name the block, or give a layer")


def _place(chain: Chain, after: str, names: list[str], train: Labelled) -> int:
    from edgeward.split.tune import best_cut
    from edgeward.split.tuned import layer_behind

    known = [cost.name for cost in chain.costs[:-1]]
    if after == "best":
        first = next(name for name in names if name != NONE)
        place = best_cut(chain, lambda block: layer_behind(chain, block, first), train.take(slice(0, _TRIED_ON)))
        note(f"{first} costs least behind block {place} ({known[place]})")
        return place
    if after.isdecimal():
        if int(after) >= len(known):
            raise ConfigError(f"--after {after}: choose from 0 ({known[0]}) to {len(known) - 1} ({known[-1]})")
        return int(after)
    if after not in known:
        raise ConfigError(f"--after {after}: there is no such block; {nearest(after, known)}; or its number, or best")
    return known.index(after)


def _tuned(chain: Chain, place: int, name: str, data: tuple[Labelled, Labelled], options: TuneOptions) -> Tuned:
    from edgeward.split.tune import tune as tune_chain
    from edgeward.split.tuned import layer_behind

    made = None if name == NONE else layer_behind(chain, place, name)
    with _progress(name) as progress:
        return tune_chain(chain, place, made, *data, replace(options, progress=progress))


def _result(tuned: Tuned, judged: Labelled, codec: str | None) -> dict[str, Any]:
    """What is shown of one layer, as plain values."""
    from edgeward.split.drops import mean_bytes, paired_drops

    sends = tuned.after if tuned.layer is None else tuned.after + 1
    costs = tuned.chain.costs
    result: dict[str, Any] = {
        "layer": tuned.layer or NONE,
        "after": tuned.after,
        "block": costs[tuned.after].name,
        "mode": tuned.options.mode,
        "bytes_before": costs[tuned.after].output_bytes,
        "bytes_after": costs[sends].output_bytes,
        "accuracy_before": tuned.accuracy_before,
        "accuracy_inserted": tuned.accuracy_inserted,
        "accuracy_tuned": tuned.accuracy_tuned,
        "lost": tuned.drop.share,
        "standard_error": tuned.drop.error,
        "validation": list(tuned.validation),
        "best_epoch": tuned.best_epoch,
        "test_pictures": len(judged),
    }
    if codec is not None:
        drop = paired_drops(tuned.chain, [codec], judged, [sends + 1])[codec][sends + 1]
        result["codec"] = codec
        result["accuracy_with_codec"] = None if drop is None else tuned.accuracy_tuned - drop.share
        result["bytes_with_codec"] = None if drop is None else mean_bytes(tuned.chain, sends + 1, codec, judged)
    return result


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on standard error, gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=f"{name}: {what}")


def _show(title: str, results: list[dict[str, Any]]) -> None:
    codec = results[0].get("codec")
    columns = ["layer", "bytes", "with layer", "accuracy", "inserted", "tuned", "lost", "standard error"]
    rows = []
    for one in results:
        row = [one["layer"], format_bytes(one["bytes_before"]), format_bytes(one["bytes_after"])]
        row += [percent(one[f"accuracy_{key}"]) for key in ("before", "inserted", "tuned")]
        row += [percent(one["lost"]), percent(one["standard_error"])]
        if codec is not None:
            fits = one["bytes_with_codec"] is not None
            row += [percent(one["accuracy_with_codec"]), format_bytes(one["bytes_with_codec"]) if fits else "–"]
        rows.append(row)
    if codec is not None:
        columns += [f"tuned, {codec}", f"bytes, {codec}"]
    show_table(title, columns, rows)
    note(f"accuracy on {results[0]['test_pictures']} test pictures; the standard error is that of what is lost")
