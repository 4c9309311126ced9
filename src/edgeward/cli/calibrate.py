"""`edgeward serve calibrate`: what each model of a ladder costs on this device, and how accurate it is by object size.

edgeward serve calibrate box.yaml                             # on the recordings of the box's own cameras
edgeward serve calibrate box.yaml people --video yard.mp4 --truth yard.txt -o people.json
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeward.cli.output import note, print_json, seconds, show_table
from edgeward.errors import ConfigError, StoreError, nearest
from edgeward.units import format_bytes

if TYPE_CHECKING:
    from edgeward.serve.config import BoxConfig, QueryConfig
    from edgeward.serve.ladder import Ladder
    from edgeward.serve.modelconfig import LadderConfig
    from edgeward.serve.models import ServedModel
    from edgeward.serve.sampling import Clip
    from edgeward.serve.trial import Progress

__all__ = ["calibrate"]


def calibrate(
    config: Annotated[Path, typer.Argument(help="The box file.", show_default=False)],
    ladder: Annotated[
        str | None, typer.Argument(help="Which of its ladders; its only one when absent.", show_default=False)
    ] = None,
    video: Annotated[
        list[str] | None, typer.Option(help="A recording; those of the ladder's cameras when absent. Repeat for more.")
    ] = None,
    truth: Annotated[
        list[Path] | None, typer.Option(help="What is in each recording (MOTChallenge text or COCO JSON), in order.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=100_000, help="About how many to measure on, in all.")] = 300,
    reference: Annotated[
        str | None, typer.Option(help="Model that stands for the truth; the slowest when absent.", show_default=False)
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Least score of a box; as in the queries when absent.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The ladder's 'calibration' when absent.", show_default=False)
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: budget.threads=1.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the ladder as JSON.")] = False,
) -> None:
    """Measure a ladder's models on this device: seconds, memory, and accuracy by object size."""
    from edgeward.serve.answering import device_name
    from edgeward.serve.calibrate import Settings, common_labels
    from edgeward.serve.calibrate import calibrate as calibrated
    from edgeward.serve.configfile import load_config
    from edgeward.serve.ladder import ladder_record, save_ladder
    from edgeward.serve.modelconfig import members_of
    from edgeward.serve.sampling import chosen_frames, frame_counts, sampled
    from edgeward.weights.session import best_provider

    box = load_config(config, set_ or [])
    entry = _entry(box, ladder)
    place = output or entry.calibration
    _check_place(place)
    queries = [query for query in box.queries if query.model == entry.name]
    clips = _clips(box, queries, video or [], truth or [])
    if truth and reference is not None:
        raise ConfigError("--reference stands for a truth that is not known; leave it or --truth away")
    models, rungs = _models(box, entry)
    labels = common_labels(models, _classes(queries))
    _check_truths(clips, labels)
    threads = box.budget.compute_threads
    with _progress() as progress:
        counts = frame_counts(clips, lambda count: progress(0, 0, f"{count} frames counted"))
        chosen = chosen_frames(counts, frames)
        settings = Settings(
            labels, device_name(best_provider(box.budget.device), threads), threads,
            _least(queries) if confidence is None else confidence,
            fused=tuple(name for name in rungs if len(members_of(name)) > 1), listed=rungs, memory=box.budget.memory,
            truth=bool(truth), reference=reference, expected=sum(map(len, chosen)), progress=progress, note=note,
        )  # fmt: skip
        made = calibrated(models, sampled(clips, chosen, labels), settings)
    if json_:
        print_json(ladder_record(made))
    else:
        _show(made, f"{entry.name} on {made.device}")
    save_ladder(made, place)  # last: whatever the disk says, what was measured is told
    note(f"written to {place}")


def _entry(box: BoxConfig, name: str | None) -> LadderConfig:
    names = [ladder.name for ladder in box.ladders]
    if not names:
        raise ConfigError("the box file has no ladder; add: ladders: - {name: ..., models: [...], calibration: ...}")
    if name is None and len(names) > 1:
        raise ConfigError(f"the box file has {len(names)} ladders; name one of them: {', '.join(names)}")
    found = box.ladder(name or names[0])
    if found is None:
        raise ConfigError(f"the box file has no ladder {name!r}; {nearest(name or '', names)}")
    return found


def _check_place(place: Path) -> None:
    """StoreError when a file cannot be written there: said now, not after minutes of measuring."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror}; choose another place with -o") from error


def _clips(box: BoxConfig, queries: Sequence[QueryConfig], videos: Sequence[str], truths: Sequence[Path]) -> list[Clip]:
    """Recordings to measure on: those given, or the sources of the cameras whose queries name the ladder."""
    from edgeward.serve.sampling import Clip
    from edgeward.vision.sources import redact
    from edgeward.vision.truth import load_truth

    cameras = {query.camera for query in queries}
    sources = list(videos) or list(dict.fromkeys(each.source for each in box.cameras if each.name in cameras))
    if not sources:
        raise ConfigError("no query names this ladder, so it has no camera; give a recording with --video")
    if truths and len(truths) != len(sources):
        raise ConfigError(
            f"{len(truths)} of --truth for {len(sources)} recordings ({', '.join(map(redact, sources))}); give one for "
            "each in the same order, or none"
        )
    loaded = [load_truth(path) for path in truths]
    return [Clip(source, known) for source, known in itertools.zip_longest(sources, loaded)]


def _models(box: BoxConfig, entry: LadderConfig) -> tuple[dict[str, ServedModel], tuple[str, ...]]:
    """The ladder's models, a portfolio's variants each on its own, and the names of its rungs."""
    from edgeward.serve.answering import ladder_members, ladder_models, with_variants
    from edgeward.serve.fused import check_members
    from edgeward.serve.modelconfig import members_of
    from edgeward.serve.models import default_cache
    from edgeward.serve.wiring import no_plans, resolve
    from edgeward.weights.session import best_provider
    from edgeward.weights.store import WeightStore

    cache = box.cache or default_cache()
    store = WeightStore(cache / "weights")
    found: dict[str, ServedModel] = {}
    for model in box.models:
        if model.name in entry.members:
            note(f"preparing model {model.name}")
            served = resolve(model, store, cache, best_provider(box.budget.device))
            found[model.name] = served or no_plans(model)
    found = with_variants(box, found)
    rungs = ladder_models(entry, found)
    for name in rungs:
        if len(members_of(name)) > 1:
            check_members(name, found)
    return {name: found[name] for name in ladder_members(entry, found)}, rungs


def _classes(queries: Sequence[QueryConfig]) -> list[str]:
    """The classes that the queries keep; none when one keeps all."""
    if not all(query.classes for query in queries):
        return []
    return sorted({name for query in queries for name in query.classes or ()})


def _least(queries: Sequence[QueryConfig]) -> float:
    """The least score that a query of the ladder asks for. Raises ConfigError for none."""
    found = min((query.confidence for query in queries), default=0.3)
    if not 0 < found < 1:
        names = ", ".join(query.key for query in queries if query.confidence == found)
        raise ConfigError(f"query {names} has confidence {found}; give --confidence, over 0 and below 1, for this")
    return found


def _check_truths(clips: Sequence[Clip], labels: tuple[str, ...]) -> None:
    """ConfigError unless all truths annotate the same classes of the ladder, at least one."""
    from edgeward.vision.sources import redact

    annotated = [set(clip.truth.labels) & set(labels) for clip in clips if clip.truth is not None]
    for clip, known in zip(clips, annotated, strict=False):
        if not known:
            names = ", ".join(clip.truth.labels[:5]) if clip.truth else ""
            raise ConfigError(
                f"the truth of {redact(clip.source)} annotates {names or 'nothing'}, the ladder finds "
                f"{', '.join(labels[:5])}: no class is shared; correct 'labels' or leave --truth away"
            )
        if known != annotated[0]:
            raise ConfigError(
                f"the truth of {redact(clip.source)} annotates {', '.join(sorted(known))}, that of "
                f"{redact(clips[0].source)} {', '.join(sorted(annotated[0]))}; calibrate with one kind at a time"
            )
    if annotated and annotated[0] != set(labels):
        note(f"accuracy is measured on {', '.join(sorted(annotated[0]))} alone: the truth annotates no other class")


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar with the remaining time on standard error, gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("preparing", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total or None, description=what)


def _show(ladder: Ladder, title: str) -> None:
    bins = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(ladder.edges)]
    rows = [
        [rung.name, seconds(rung.seconds), seconds(rung.load_seconds), format_bytes(rung.bytes)]
        + [f"{figure:.3f}" for figure in (*rung.accuracy, rung.mean, rung.static_iou)]
        for rung in sorted(ladder.rungs, key=lambda rung: rung.seconds)
    ]
    show_table(title, ["model", "a frame", "load", "memory", *bins, "mean", "unmoved"], rows)
