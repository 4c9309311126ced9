"""A ladder measured on this device: what each model costs, and how accurate it is on objects of each size.

    clips = [Clip("yard.mp4")]
    chosen = chosen_frames(frame_counts(clips), frames=300)
    settings = Settings(labels=("person",), device="pi", threads=2)
    ladder = calibrate(models, sampled(clips, chosen, settings.labels), settings)
    save_ladder(ladder, Path("ladder.json"))

Without truth, the boxes of the strongest model are taken for it: accuracy is agreement with them. The strongest would
agree with itself perfectly, so it is judged on mirrored pictures: what it is not sure of comes out differently there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeward.errors import ConfigError, nearest
from edgeward.serve.judging import Findings, Judge, fused_rung, worth_fusing
from edgeward.serve.ladder import Ladder, Rung, dominated
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.serve.models import ServedModel
from edgeward.serve.sampling import Picture
from edgeward.serve.sizetable import object_sizes, size_edges
from edgeward.serve.trial import Conditions, Progress, Trial, tried
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

__all__ = ["Settings", "calibrate", "common_labels"]

SURE = 0.5
"""Boxes that a reference holds to be wrong rather than right are no truth, however low a score the queries ask for."""
UNSURE = 0.5
"""Boxes of a reference below that, but not below this share of it, are neither right nor wrong."""
BUSY = 1.5
"""A tenth of the runs takes longer than this many medians: the device was not idle."""


@dataclass(frozen=True)
class Settings:
    """How a ladder is measured.

    labels: its class names. device: the name of this device. threads: of the runtime, as in the box that will use it.
    confidence: least certainty of a box that counts, as in its queries. fused: rungs of several of the models, ONE+TWO;
    what they cost and find is worked out from their members. listed: names of the rungs that remarks are about, all
    when None; the others are measured as members only. memory: bytes that the box may hold; None for any. truth:
    whether the pictures' truth is complete; when not, the boxes of the model `reference` stand for it, or of the
    slowest when it is None. expected: number of pictures. note: told in words what is odd about the figures.
    """

    labels: tuple[str, ...]
    device: str
    threads: int = 1
    confidence: float = 0.3
    fused: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None
    memory: int | None = None
    truth: bool = False
    reference: str | None = None
    expected: int = 0
    progress: Progress = lambda done, total, what: None
    note: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("no class to calibrate for; name at least one label that all models know")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence}; it must be over 0 and below 1")


def calibrate(models: Mapping[str, ServedModel], pictures: Iterable[Picture], settings: Settings) -> Ladder:
    """Measure every model on the pictures.

    Raises ConfigError for a reference that is not there, for no picture, and when no object is in any of them;
    ModelError, naming the model, when one is no detector or fails.
    """
    _check(models, settings)
    unlabelled = not settings.truth
    conditions = Conditions(
        settings.labels,
        settings.threads,
        settings.confidence,
        unlabelled,
        settings.reference,
        settings.expected,
        settings.progress,
    )
    trials, taken = tried(models, pictures, conditions)
    if not taken:
        raise ConfigError("there is no frame to measure on; give a recording that plays, with --video")
    reference = next((name for name, trial in trials.items() if trial.mirrored), "")
    truth = _agreed(trials[reference].boxes, settings) if reference else _collected(taken, settings.labels)
    sizes = object_sizes(truth)
    if not len(sizes):
        raise ConfigError(_nothing(len(taken), reference, settings))
    judge = Judge(truth, tuple(taken), size_edges(sizes), settings.confidence)
    found = {
        name: Findings(trial.mirrored if name == reference else trial.boxes, trial.boxes)
        for name, trial in trials.items()
    }
    rungs = {
        name: replace(
            judge.rung(name, found[name], trial.median, trial.load_seconds, models[name].tensors),
            fed=models[name].card.fed,
        )
        for name, trial in trials.items()
    }
    if not any(rung.mean for rung in rungs.values()):
        raise ConfigError(
            f"no model finds any of the {len(sizes)} objects of the truth in {len(taken)} frames; is it the truth of "
            "this recording, in pixels of its pictures, its first frame the first one?"
        )
    tensors = {name: model.tensors for name, model in models.items()}
    made = [fused_rung(name, judge, rungs, found, tensors) for name in settings.fused]
    ladder = Ladder(settings.device, settings.labels, judge.edges, (*rungs.values(), *made))
    advice = () if reference else worth_fusing(judge, rungs, found, made, tensors, settings.memory)
    listed = [rung for rung in ladder.rungs if settings.listed is None or rung.name in settings.listed]
    for text in (*_remarks(listed, trials, truth, reference), *advice):
        settings.note(text)
    return ladder


def common_labels(models: Mapping[str, ServedModel], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes that every model knows, in the order of the first one's list; of `wanted` only, when there are any.

    Raises ConfigError when there is none.
    """
    lists = {name: model.card.labels for name, model in models.items()}
    first = next(iter(lists.values()), ())
    found = tuple(
        label for label in first if all(label in each for each in lists.values()) and (not wanted or label in wanted)
    )
    if not found:
        known = "; ".join(f"{name!r} knows {', '.join(each[:3]) or 'no labels'}" for name, each in lists.items())
        asked = f" of {', '.join(wanted)}" if wanted else ""
        raise ConfigError(f"the models of the ladder share no class{asked}: {known}; correct 'labels' or the ladder")
    return found


def _check(models: Mapping[str, ServedModel], settings: Settings) -> None:
    if not models:
        raise ConfigError("no model to calibrate; name at least one in the ladder")
    for name, model in models.items():
        if model.card.task != "detection":
            raise ConfigError(f"model {name!r} does {model.card.task}; a ladder holds detectors only")
        missing = [label for label in settings.labels if label not in model.card.labels]
        if missing:
            raise ConfigError(f"model {name!r} does not know the class {missing[0]!r}; take one or the other away")
    for member in (each for name in settings.fused for each in members_of(name)):
        if member not in models:
            raise ConfigError(f"no model {member!r} to fuse; {nearest(member, models)}")
    if settings.reference is not None and settings.reference not in models:
        several = len(members_of(settings.reference)) > 1
        one = "a reference is one model; " if several else "a reference is a model of the ladder; "
        raise ConfigError(
            f"no model {settings.reference!r} to compare with; {one}{nearest(settings.reference, models)}"
        )


def _collected(taken: Sequence[Picture], labels: tuple[str, ...]) -> Truth:
    """The truth of all pictures as one, numbered as they were taken."""
    frames = [picture.truth for picture in taken]
    if any(frame is None for frame in frames):
        raise ConfigError("some pictures have no truth; give it for every recording, or for none")
    return _joined([frame for frame in frames if frame is not None], labels)


def _agreed(boxes: Sequence[Detections], settings: Settings) -> Truth:
    """The reference's boxes as truth; those that it is not sure of count neither way."""
    frames, least = [], _least(settings)
    for each in boxes:
        found = each[each.confidence >= UNSURE * least]
        unsure = found.confidence < least
        frames.append(TruthFrame(found.xyxy, np.full(len(found), -1, np.int32), found.class_id, unsure))
    return _joined(frames, settings.labels)


def _least(settings: Settings) -> float:
    """Score from which on a reference's boxes stand for the truth."""
    return max(settings.confidence, SURE)


def _joined(frames: Sequence[TruthFrame], labels: tuple[str, ...]) -> Truth:
    number = np.repeat(np.arange(len(frames), dtype=np.int32), [len(frame) for frame in frames])
    boxes = TruthFrame(
        np.concatenate([frame.xyxy for frame in frames]),
        np.concatenate([frame.tracker_id for frame in frames]),
        np.concatenate([frame.class_id for frame in frames]),
        np.concatenate([frame.ignored for frame in frames]),
    )
    return Truth(len(frames), labels, number, boxes)


def _nothing(pictures: int, reference: str, settings: Settings) -> str:
    classes = ", ".join(settings.labels[:5]) + (" ..." if len(settings.labels) > 5 else "")
    if reference:
        return (
            f"{reference!r} finds no {classes} with a score of at least {_least(settings):g} in {pictures} frames; "
            "give a recording that shows some, more --frames, another --reference, or the --truth"
        )
    return f"the truth has no {classes} in {pictures} frames; give a recording that shows some, or more --frames"


def _remarks(rungs: Sequence[Rung], trials: Mapping[str, Trial], truth: Truth, reference: str) -> list[str]:
    """What is odd about the figures, and about the rungs to choose from, in words."""
    count = len(object_sizes(truth))
    said = (
        [f"accuracy is agreement with {reference!r}; without truth, nobody knows what it misses"] if reference else []
    )
    if count < 100:
        said.append(f"only {count} objects were seen: accuracies are rough; give more --frames or another --video")
    busy = [name for name, trial in trials.items() if np.quantile(trial.seconds, 0.9) > BUSY * trial.median]
    if busy:
        said.append(f"times of {', '.join(busy)} vary: was the device idle? calibrate again when it is")
    if any(looks_of(rung.name) > 1 for rung in rungs):
        said.append("accuracies of models in turn, '~', are those of still objects; the box weighs what motion costs")
    if len(rungs) == 1:
        said.append(f"the ladder has one model, {rungs[0].name!r}: there is nothing to choose")
    return said + list(dominated(rungs).values())
