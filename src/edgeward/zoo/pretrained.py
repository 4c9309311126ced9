"""Trained weights for a network, from a file that may come from another implementation of it.

    load_pretrained(network.module, Path("resnet20.th"))      # "names" or "order"

Read without running code: safetensors, or a torch file with `weights_only`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgeward.errors import ModelError

__all__ = ["load_pretrained"]

LARGEST_BYTES = 16 << 30
_COUNTER = "num_batches_tracked"


def load_pretrained(module: nn.Module, path: Path) -> Literal["names", "order"]:
    """Fill a network in place, by the names of its tensors, or else by their order and shapes; which of the two.

    The tensors may lie under "state_dict" and their names begin with "module.". Order is what implementations with
    other names have in common: check the accuracy then. Batch norms' counters may be absent. Raises ModelError when the
    file cannot be read or does not fit; the network is then unchanged.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in _read(path).items()}
    given = {name: tensor for name, tensor in given.items() if not name.endswith(_COUNTER)}
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(_COUNTER)}
    if set(given) == set(own):
        pairs, how = [(own[name], name, given[name]) for name in own], "names"
    elif len(given) == len(own):
        pairs, how = [(mine, name, given[name]) for mine, name in zip(own.values(), given, strict=True)], "order"
    else:
        raise ModelError(f"{path} has {len(given)} tensors, the network {len(own)}; it is another network's")
    for mine, name, theirs in pairs:
        if mine.shape != theirs.shape:
            raise ModelError(f"{path}: {name} has shape {list(theirs.shape)}, the network needs {list(mine.shape)}")
        if not torch.isfinite(theirs.float()).all():
            raise ModelError(f"{path}: {name} holds values that are not finite; obtain the file again")
    with torch.no_grad():
        for mine, _, theirs in pairs:
            mine.copy_(theirs)
    return "names" if how == "names" else "order"


def _read(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; weights have at most {LARGEST_BYTES}")
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}; check the path") from error
    except ModelError:
        raise
    except Exception as error:  # damaged files fail in as many ways as there are bytes
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} does not hold plain tensors: {reason}; save a state_dict as safetensors") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise ModelError(
            f"{path} holds no state_dict: tensors by name; save one with torch.save(net.state_dict(), ...)"
        )
    return {str(name): tensor for name, tensor in found.items()}
