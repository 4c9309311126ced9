"""What a tuning that was interrupted goes on from, in one file of plain tensors.

    save_checkpoint(path, identity, Checkpoint(history, best), student, optimizer)
    found = load_checkpoint(path, identity, student, optimizer)      # None where there is none

Written after every epoch, wholly or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgeward.errors import StoreError
from edgeward.graph.chain import Chain
from edgeward.profile.file import replace_bytes
from edgeward.vision.labelled import Labelled

__all__ = [
    "Checkpoint",
    "History",
    "identity_of",
    "load_checkpoint",
    "save_checkpoint",
    "weights_of",
]


@dataclass(frozen=True)
class History:
    """Accuracy on held out pictures, untuned and after every epoch, and the first epoch that had the best."""

    validation: tuple[float, ...]
    best_epoch: int

    def with_epoch(self, score: float) -> History:
        """After one more epoch."""
        better = score > self.validation[self.best_epoch]
        return History((*self.validation, score), len(self.validation) if better else self.best_epoch)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """How far a tuning has come. best: the weights of its best epoch."""

    history: History
    best: Mapping[str, Tensor]


def weights_of(chain: Chain, *, copied: bool = False) -> dict[str, Tensor]:
    """Every parameter and buffer once, by name; the chain's own objects, or copies."""
    found = {**dict(chain.named_parameters()), **dict(chain.named_buffers())}
    return {name: one.detach().clone() if copied else one.detach() for name, one in found.items()}


def identity_of(chain: Chain, cut: tuple[Any, ...], data: Iterable[Labelled], options: Any) -> str:
    """Equal for runs that come to the same result: of the network's weights, the cut, the pictures and the options."""
    digest = hashlib.sha256(chain.fingerprint.encode())
    settings = {one.name: getattr(options, one.name) for one in dataclasses.fields(options) if one.compare}
    digest.update(json.dumps([cut, settings], sort_keys=True).encode())
    for name, tensor in weights_of(chain).items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for part in data:
        digest.update(part.images.tobytes())
        digest.update(part.labels.tobytes())
        digest.update(json.dumps([part.mean, part.std]).encode())
    return digest.hexdigest()


def save_checkpoint(
    path: Path, identity: str, state: Checkpoint, student: Chain, optimizer: torch.optim.Optimizer
) -> None:
    """Write where a tuning is. Raises StoreError when the disk refuses."""
    tensors = {f"now/{name}": tensor for name, tensor in weights_of(student, copied=True).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    about = {"identity": identity, "history": json.dumps(dataclasses.asdict(state.history))}
    replace_bytes(path, safetensors.torch.save({name: one.contiguous() for name, one in tensors.items()}, about))


def load_checkpoint(path: Path, identity: str, student: Chain, optimizer: torch.optim.Optimizer) -> Checkpoint | None:
    """Put student and optimizer where the file left them; None where there is no file.

    Raises StoreError when it is damaged or another run's.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("identity") != identity:
                raise StoreError(f"{path} is of a tuning with other data or options; delete it to begin anew")
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        record = json.loads(about["history"])
        history = History(tuple(float(one) for one in record["validation"]), int(record["best_epoch"]))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in stored.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = tensor
        own = weights_of(student)
        best = {name: stored[f"best/{name}"] for name in own}
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(stored[f"now/{name}"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete it to begin anew") from error
    return Checkpoint(history, best)
