"""What a training that was interrupted goes on from, in one file of plain tensors.

    save_checkpoint(path, identity, history, model, optimizer)
    history = load_checkpoint(path, identity, model, optimizer)      # None where there is none

Written after every epoch, wholly or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgeward.errors import StoreError
from edgeward.profile.file import replace_bytes
from edgeward.prune.data import Data, digest_of
from edgeward.prune.mask import Mask

__all__ = ["History", "identity_of", "load_checkpoint", "save_checkpoint", "state_of"]


@dataclass(frozen=True)
class History:
    """Steps taken; mean loss and, where data was held out, accuracy after each epoch; seconds, measuring included."""

    steps: int = 0
    losses: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    seconds: float = 0.0


def state_of(model: nn.Module, *, copied: bool = False) -> dict[str, Tensor]:
    """Every parameter and buffer once, by name; the model's own objects, or copies."""
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: one.detach().clone() if copied else one.detach() for name, one in found.items()}


def identity_of(model: nn.Module, data: Iterable[Data | None], settings: Any, mask: Mask | None = None) -> str:
    """Equal for runs that come to the same result: of weights, mask, examples and settings (as JSON)."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensors in (state_of(model), mask.tensors if mask is not None else {}):
        for name, tensor in tensors.items():
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    for one in data:
        digest.update(digest_of(one).encode() if one is not None else b"none")
    return digest.hexdigest()


def save_checkpoint(
    path: Path, identity: str, history: History, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write where a training is. Raises StoreError when the disk refuses."""
    tensors = {f"now/{name}": tensor for name, tensor in state_of(model).items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    about = {"identity": identity, "history": json.dumps(dataclasses.asdict(history))}
    plain = {name: one.cpu().contiguous() for name, one in tensors.items()}
    replace_bytes(path, safetensors.torch.save(plain, about))


def load_checkpoint(path: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> History | None:
    """Put model and optimizer where the file left them; None where there is no file.

    Raises StoreError when it is damaged or another run's.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("identity") != identity:
                raise StoreError(f"{path} is of another training; delete it to begin anew")
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        record = json.loads(about["history"])
        history = History(
            int(record["steps"]), tuple(record["losses"]), tuple(record["accuracies"]), float(record["seconds"])
        )
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in stored.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = tensor
        with torch.no_grad():
            for name, tensor in state_of(model).items():
                tensor.copy_(stored[f"now/{name}"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete it to begin anew") from error
    return history
