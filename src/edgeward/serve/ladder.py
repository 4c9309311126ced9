"""A ladder: detectors that can answer the same question, each with its accuracy by object size and its cost.

    ladder = load_ladder(Path("ladder.json"))
    ladder.check(device="pi", labels=("person",))        # raises when it was calibrated elsewhere
    print([rung.name for rung in ladder.rungs], ladder.notes)

Sizes are relative: the square root of the share of the frame that a box covers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from edgeward.errors import ConfigError, nearest
from edgeward.profile.file import replace_text
from edgeward.serve.certainty import UNCHANGED
from edgeward.serve.modelconfig import looks_of, members_of

__all__ = ["FORMAT", "Ladder", "Rung", "beats", "dominated", "ladder_record", "load_ladder", "save_ladder"]

FORMAT = 1
LARGEST_BYTES = 1 << 20
AGAIN = "calibrate it again with: edgeward serve calibrate"


@dataclass(frozen=True)
class Rung:
    """One model of a ladder.

    accuracy: average precision at an IoU of 0.5 on fresh frames, by size bin, 0..1. seconds: median of one inference on
    the idle device. load_seconds: until it can answer when it is not in memory. bytes: in memory. static_iou: mean
    overlap of its boxes of an object that does not move in two frames; they jitter. certainty: slope and offset that
    make its scores comparable with those of other rungs (see `edgeward.serve.certainty`). fit: mean overlap of its
    right boxes with their objects, over 0.5. parts: of models in turn, the seconds of each; `seconds` is
    their mean. fed: what it looked at (`ModelCard.fed`), "" where that is not known.

    Raises ConfigError for a figure out of its range.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    accuracy: tuple[float, ...]
    seconds: float
    load_seconds: float = 0.0
    bytes: int = 0
    static_iou: float = 0.8
    certainty: tuple[float, float] = UNCHANGED
    fit: float = 0.75
    parts: tuple[float, ...] = ()
    fed: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "accuracy", tuple(self.accuracy))
        object.__setattr__(self, "certainty", tuple(self.certainty))
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.name:
            raise ConfigError("a rung has no name; give each model of the ladder a name of its own")
        for figure in self.accuracy:
            if not 0 <= figure <= 1:
                raise ConfigError(f"rung {self.name!r}: accuracy {figure} is outside 0..1; {AGAIN}")
        if not 0 < self.seconds < math.inf:
            raise ConfigError(
                f"rung {self.name!r}: an inference of {self.seconds} s; it must take more than 0; {AGAIN}"
            )
        if not 0 <= self.load_seconds < math.inf or self.bytes < 0:
            raise ConfigError(
                f"rung {self.name!r}: load_seconds {self.load_seconds}, bytes {self.bytes}; each is at least 0; {AGAIN}"
            )
        if not 0 < self.static_iou <= 1:
            raise ConfigError(f"rung {self.name!r}: static_iou {self.static_iou} is not over 0 and at most 1; {AGAIN}")
        if not 0.5 < self.fit <= 1:
            raise ConfigError(f"rung {self.name!r}: fit {self.fit} is not over 0.5 and at most 1; {AGAIN}")
        turns = looks_of(self.name)
        if len(self.parts) != (turns if turns > 1 else 0) or not all(0 < each < math.inf for each in self.parts):
            raise ConfigError(
                f"rung {self.name!r}: parts {list(self.parts)}; it must hold the seconds of each of its "
                f"{turns if turns > 1 else 0} models in turn, over 0; {AGAIN}"
            )
        slope, offset = self.certainty
        if not 0 < slope < math.inf or not math.isfinite(offset):
            raise ConfigError(
                f"rung {self.name!r}: certainty {self.certainty} needs a slope over 0 and a finite offset; {AGAIN}"
            )

    @property
    def mean(self) -> float:
        """Accuracy when every size is equally frequent."""
        return sum(self.accuracy) / len(self.accuracy)

    def turns(self, seconds: float) -> tuple[float, ...]:
        """Seconds of the answer of each model in turn when they are so many on average; of others just these."""
        return tuple(seconds * each / self.seconds for each in self.parts) or (seconds,)

    def on_average(self, part: str, seconds: float) -> float:
        """Seconds of an answer on average when that of the model `part`, whose turn it was, took so many."""
        if not part or not self.parts:
            return seconds
        return seconds * self.seconds / self.parts[members_of(self.name).index(part)]


@dataclass(frozen=True)
class Ladder:
    """Models to choose from at run time, in any order.

    device: where seconds were measured. labels: class names. edges: bounds of the size bins, from 0 upwards; bin b
    holds sizes in [edges[b], edges[b + 1]), the last one its upper bound and whatever is larger, too.

    Raises ConfigError when rungs are missing, share a name or have another number of bins.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    device: str
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    rungs: tuple[Rung, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        for field in ("labels", "edges", "rungs"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.format != FORMAT:
            raise ConfigError(f"ladder has format {self.format}, this version reads {FORMAT}; {AGAIN}")
        if not self.rungs:
            raise ConfigError("a ladder has no rung; name at least one model")
        if not self.labels:
            raise ConfigError("a ladder has no class; name at least one label")
        rising = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        if len(self.edges) < 2 or self.edges[0] != 0 or not rising or not math.isfinite(self.edges[-1]):
            raise ConfigError(f"size bins {self.edges} must rise from 0, at least two bounds; for instance 0, 0.1, 1")
        names = [rung.name for rung in self.rungs]
        for rung in self.rungs:
            if names.count(rung.name) > 1:
                raise ConfigError(f"two rungs are called {rung.name!r}; rename one")
            if len(rung.accuracy) != self.bins:
                raise ConfigError(
                    f"rung {rung.name!r} has accuracies for {len(rung.accuracy)} size bins, the ladder has "
                    f"{self.bins}; {AGAIN}"
                )

    @property
    def bins(self) -> int:
        """Number of size bins."""
        return len(self.edges) - 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What contradicts itself in the tables, in words."""
        return tuple(dominated(self.rungs).values())

    def rung(self, name: str) -> Rung:
        """The rung of that name. Raises ConfigError when there is none."""
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise ConfigError(f"no rung {name!r} in the ladder; {nearest(name, [rung.name for rung in self.rungs])}")

    def known_as(self, name: str) -> Rung | None:
        """The rung of the models of `name`, in whatever order, under that name; None when there is none."""
        for rung in self.rungs:
            members = members_of(rung.name)
            if looks_of(rung.name) == looks_of(name) and set(members) == set(members_of(name)):
                parts = dict(zip(members, rung.parts, strict=False))
                return replace(rung, name=name, parts=tuple(parts[each] for each in members_of(name) if parts))
        return None

    def check(self, device: str, labels: Sequence[str]) -> None:
        """Raises ConfigError when it was calibrated on another device or for another class list."""
        if device != self.device:
            raise ConfigError(f"the ladder was calibrated on {self.device!r}, this device is {device!r}; {AGAIN}")
        if tuple(labels) != self.labels:
            raise ConfigError(
                f"the ladder was calibrated for the classes {_listed(self.labels)}, the query asks for "
                f"{_listed(labels)}; {AGAIN}"
            )


def dominated(rungs: Iterable[Rung]) -> dict[str, str]:
    """Rungs that can never be the best choice, with the reason in words.

    Such a rung is no more accurate in any bin, no faster and no smaller than another one; of equals the first stays.
    Models in turn rule out nothing: a part of what they show is older, which their accuracies do not say.
    """
    rungs = sorted(rungs, key=lambda rung: rung.name)
    found: dict[str, str] = {}
    for rung in rungs:
        rival = next((other for other in rungs if other.name not in found and beats(other, rung)), None)
        if rival is not None:
            found[rung.name] = (
                f"{rung.name!r} is left out: {rival.name!r} is at least as accurate for every object size, as fast and "
                f"as small; check its accuracy table"
            )
    return found


def beats(other: Rung, rung: Rung) -> bool:
    """Whether `other` is at least as good in everything, and better in something or first by name."""
    mine = (*rung.accuracy, -rung.seconds, -rung.bytes)
    theirs = (*other.accuracy, -other.seconds, -other.bytes)
    at_least = looks_of(other.name) == 1 and all(a >= b for a, b in zip(theirs, mine, strict=True))
    return at_least and (theirs != mine or other.name < rung.name)


def load_ladder(path: Path) -> Ladder:
    """A ladder from its file. Raises ConfigError when the file is absent, too large, or not a ladder."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes; a ladder has at most {LARGEST_BYTES}")
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read ladder {path}: {error.strerror}; make one with: edgeward serve calibrate"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}); {AGAIN}") from error
    try:
        return _LADDER.validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "ladder"
        raise ConfigError(f"{path}: {where}: {first['msg']}; {AGAIN}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def save_ladder(ladder: Ladder, path: Path) -> None:
    """Write a ladder as JSON, wholly or not at all. Raises StoreError when the disk refuses."""
    replace_text(path, json.dumps(ladder_record(ladder), indent=1) + "\n")


def ladder_record(ladder: Ladder) -> dict[str, Any]:
    """What the file of a ladder says."""
    return {field.name: getattr(ladder, field.name) for field in fields(ladder)} | {
        "rungs": [vars(rung) for rung in ladder.rungs]
    }


def _listed(labels: Collection[str]) -> str:
    return ", ".join(list(labels)[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


_LADDER: TypeAdapter[Ladder] = TypeAdapter(Ladder)
