"""Where a search is, as a value and as the file that it goes on from.

    progress = read_progress(Path("merged"), identity, groups)       # None where nothing was begun
    resume(Path("merged"), models, progress)                         # the models as they were then

The file lies beside the models that it belongs to and is replaced together with them.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeward.errors import ModelError, StoreError
from edgeward.merge.deltas import add_delta, deltas
from edgeward.merge.groups import Group, Instance
from edgeward.merge.manifest import names
from edgeward.merge.sharing import Sharing
from edgeward.merge.store import load_one
from edgeward.merge.task import Task
from edgeward.merge.tie import tie
from edgeward.merge.trials import Trial
from edgeward.zoo.files import read_bytes

__all__ = ["SEARCH_FILE", "Progress", "identity_of", "read_progress", "resume"]

SEARCH_FILE = "search.json"
_LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Progress:
    """identity: of models, data and options. base: unmerged accuracy on validation and on test data, by model.

    trial: what to try next, None at the end. seconds: spent so far. attempts: made so far.
    """

    identity: str
    base: Mapping[str, tuple[float, float]]
    trial: Trial | None
    confirmed: Sharing = field(default_factory=Sharing)
    seconds: float = 0.0
    attempts: int = 0

    def to_json(self) -> str:
        """As a JSON text."""
        record = asdict(self)
        record["confirmed"] = [[asdict(one) for one in group.instances] for group in self.confirmed.groups]
        return json.dumps(record, indent=1) + "\n"


def identity_of(tasks: Sequence[Task], options: Any) -> str:
    """Equal for searches that take the same course: of weights, sizes of data, and options but for the time allowed."""
    told = {**asdict(options), "seconds": None}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for task in tasks:
        sizes = [len(task.train), len(task.validation), len(task.test)]
        digest.update(json.dumps([task.name, sizes]).encode())
        for path, value in task.module.state_dict().items():
            digest.update(f"{path}{list(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_progress(folder: Path, identity: str, groups: Sequence[Group]) -> Progress | None:
    """Where the search in a folder is; None where none was begun.

    Raises StoreError when the file is damaged, or is of other models, data or options.
    """
    path = folder / SEARCH_FILE
    if not path.exists():
        if names(folder):
            raise StoreError(f"{folder} holds merged models but no search to go on with; choose another place")
        return None
    try:
        record = json.loads(read_bytes(path, _LARGEST_BYTES))
        if record["identity"] != identity:
            raise StoreError(f"{path} is of other models, data or options; choose another place or delete {folder}")
        trial = record["trial"]
        return Progress(
            identity,
            {str(name): (float(base[0]), float(base[1])) for name, base in record["base"].items()},
            None if trial is None else _trial(trial, groups),
            Sharing(tuple(_group([_instance(one) for one in held], groups) for held in record["confirmed"])),
            float(record["seconds"]),
            int(record["attempts"]),
        )
    except (ModelError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete {folder} to begin anew") from error


def resume(folder: Path, models: Mapping[str, nn.Module], progress: Progress) -> None:
    """Make unmerged models what the folder holds, tied as they were. Raises StoreError when it is damaged."""
    for name, module in models.items():
        stored = load_one(folder, name, partial(copy.deepcopy, module))
        for path, rank in deltas(stored).items():
            add_delta(module, path, rank)
        module.load_state_dict(stored.state_dict())
    for group in progress.confirmed.groups:
        tie(models, group, group.instances[0])


def _trial(record: Mapping[str, Any], groups: Sequence[Group]) -> Trial:
    trying, held, left = (tuple(_instance(one) for one in record[key]) for key in ("trying", "copy", "left"))
    index, width = int(record["group"]), int(record["width"])
    known = {one for group in groups[max(index, 0) : index + width] for one in group.instances}
    if not 0 <= index < index + width <= len(groups) or not {*trying, *held, *left} <= known or not trying:
        raise ValueError("the next trial is none of these models")
    return Trial(index, trying, held, left, width, int(record["failed"]))


def _instance(record: Mapping[str, Any]) -> Instance:
    return Instance(str(record["model"]), str(record["layer"]))


def _group(instances: Sequence[Instance], groups: Sequence[Group]) -> Group:
    """Those of one of the groups."""
    for group in groups:
        if instances and set(instances) <= set(group.instances):
            return Group(group.signature, tuple(instances))
    raise ValueError("layers that are in no group are shared")
