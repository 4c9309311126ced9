"""Which weights of a network are kept: a boolean tensor for each parameter, as a validated value.

mask = Mask.ones(model, prunable(model))
mask.density                                  # 1.0
mask.apply_(model)                            # weights that are not kept become exactly 0
mask.save(path); Mask.load(path)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgeward.errors import PruneError, StoreError, nearest
from edgeward.profile.file import replace_bytes

__all__ = ["Mask"]

FORMAT = "edgeward-mask"
VERSION = "1"


@dataclass(frozen=True, eq=False)
class Mask:
    """tensors: bool, of the shape of the parameter of that name; True is kept. provenance: how it came about, in words.

    Raises PruneError when a tensor is not boolean or there is none.
    """

    tensors: Mapping[str, Tensor]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tensors:
            raise PruneError("a mask of no parameters prunes nothing; name at least one weight")
        for name, tensor in self.tensors.items():
            if tensor.dtype != torch.bool or not tensor.numel():
                raise PruneError(
                    f"the mask of {name} is {tensor.dtype} {list(tensor.shape)}; give booleans, at least one"
                )
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return f"Mask({len(self.tensors)} parameters, {self.kept} of {self.total} weights kept, {self.density:.2%})"

    @classmethod
    def ones(cls, model: nn.Module, names: Iterable[str]) -> Mask:
        """Everything kept in the parameters named. Raises PruneError for a name that the model does not have."""
        own = dict(model.named_parameters(remove_duplicate=False))
        names = tuple(names)
        for name in names:
            if name not in own:
                raise PruneError(f"the network has no parameter {name!r}; {nearest(name, own)}")
        return cls({name: torch.ones_like(own[name], dtype=torch.bool) for name in names})

    @property
    def kept(self) -> int:
        """Weights that are kept."""
        return sum(int(one.sum()) for one in self.tensors.values())

    @property
    def total(self) -> int:
        """Weights that the mask speaks of."""
        return sum(one.numel() for one in self.tensors.values())

    @property
    def density(self) -> float:
        """Share of weights that are kept."""
        return self.kept / self.total

    def densities(self) -> dict[str, float]:
        """The same for each parameter."""
        return {name: int(one.sum()) / one.numel() for name, one in self.tensors.items()}

    def collapsed(self) -> tuple[str, ...]:
        """Parameters of which nothing is kept: no signal passes there."""
        return tuple(name for name, one in self.tensors.items() if not bool(one.any()))

    def overlap(self, other: Mask) -> float:
        """Share of the weights that this mask keeps that the other keeps too. Raises PruneError for other shapes."""
        self._same_shapes({name: one.shape for name, one in other.tensors.items()}, "the other mask")
        both = sum(int((one & other.tensors[name].to(one.device)).sum()) for name, one in self.tensors.items())
        return both / max(self.kept, 1)

    def apply_(self, model: nn.Module) -> None:
        """Set what is not kept to exactly 0, in place. Raises PruneError when the mask is of another network."""
        own = dict(model.named_parameters(remove_duplicate=False))
        self._same_shapes({name: own[name].shape for name in self.tensors if name in own}, "the network")
        with torch.no_grad():
            for name, kept in self.tensors.items():
                # Not a product: that would leave -0, and NaN where a dead weight was one.
                own[name].masked_fill_(~kept.to(own[name].device), 0)

    def save(self, path: Path) -> None:
        """Write one safetensors file, one bit a weight, wholly or not at all. Raises StoreError if the disk refuses."""
        packed = {name: _packed(one) for name, one in self.tensors.items()}
        shapes = {name: list(one.shape) for name, one in self.tensors.items()}
        about = {
            "format": FORMAT,
            "version": VERSION,
            "shapes": json.dumps(shapes),
            "provenance": json.dumps(dict(self.provenance)),
            "sha256": _digest(shapes, dict(self.provenance), packed),
        }
        replace_bytes(path, safetensors.torch.save(packed, about))

    @classmethod
    def load(cls, path: Path) -> Mask:
        """Read what `save` wrote. Raises StoreError if it is absent, no mask, of a newer version, damaged or edited."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise StoreError(f"{path} is no mask; make one with: edgeward prune")
                if about.get("version") != VERSION:
                    raise StoreError(f"{path} has mask version {about.get('version')}; this edgeward reads {VERSION}")
                packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            shapes, provenance = json.loads(about["shapes"]), json.loads(about["provenance"])
            if _digest(shapes, provenance, packed) != about["sha256"]:
                raise ValueError("its SHA-256 is another")
            return cls({name: _unpacked(packed[name], shape) for name, shape in shapes.items()}, provenance)
        except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"cannot read the mask {path} ({error}); make it anew with: edgeward prune") from error

    def _same_shapes(self, shapes: Mapping[str, torch.Size], whose: str) -> None:
        for name, one in self.tensors.items():
            if shapes.get(name) != one.shape:
                found = "has no such parameter" if name not in shapes else f"has {list(shapes[name])}"
                raise PruneError(f"the mask of {name} is {list(one.shape)}, {whose} {found}; use the network it is of")


def _packed(one: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(one.cpu().numpy().reshape(-1)))


def _unpacked(bits: Tensor, shape: list[int]) -> Tensor:
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.numel() != (count + 7) // 8:
        raise ValueError(f"{bits.numel()} bytes do not hold {shape}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(bool)).reshape(shape)


def _digest(shapes: Mapping[str, list[int]], provenance: Mapping[str, str], packed: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([sorted(shapes.items()), sorted(provenance.items())]).encode())
    for name in sorted(packed):
        digest.update(packed[name].numpy().tobytes())
    return digest.hexdigest()
