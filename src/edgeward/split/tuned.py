"""A tuned network on disk: its weights, and what they belong to.

    save_tuned(tuned, Path("smaller"), Base("cifar-resnet20", (3, 32, 32), CutOptions()))
    chain = load_tuned(Path("smaller"))      # with the transfer layer in place

The folder holds tuned.json and weights.safetensors. A network of a Python file has to be given again when it is loaded:
what lies in a folder never decides which code is run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from edgeward.errors import ModelError
from edgeward.graph.chain import Chain, CutOptions, cut
from edgeward.graph.transfer import TransferLayer, fitting, parse_transfer, with_transfer
from edgeward.profile.file import replace_bytes
from edgeward.split.checkpoint import weights_of
from edgeward.split.tune import Tuned

__all__ = ["Base", "TunedRecord", "layer_behind", "load_tuned", "read_record", "save_tuned"]

LARGEST_RECORD = 1 << 20
_RECORD, _WEIGHTS = "tuned.json", "weights.safetensors"


@dataclass(frozen=True)
class Base:
    """The network that was tuned: what the user calls it, the shape of one sample, and how it was cut."""

    model: str
    shape: tuple[int, ...]
    cuts: CutOptions


class TunedRecord(BaseModel):
    """What tuned.json says. accuracy: shares of the test pictures; error: standard error of before less tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    model: str
    shape: tuple[int, ...] = Field(min_length=1, max_length=4)
    granularity: Literal["layer", "op"]
    max_tensors: int
    leaves: tuple[str, ...]
    after: int = Field(ge=0)
    block: str
    layer: str | None
    mode: str
    epochs: int
    accuracy: dict[Literal["before", "inserted", "tuned"], float]
    error: float
    validation: tuple[float, ...]
    best_epoch: int
    fingerprint: str
    weights_sha256: str


def save_tuned(tuned: Tuned, folder: Path, base: Base) -> TunedRecord:
    """Write a tuned network into a folder; the record comes last. Raises StoreError when the disk refuses."""
    tensors = {name: one.contiguous() for name, one in weights_of(tuned.chain, copied=True).items()}
    data = safetensors.torch.save(tensors)
    record = TunedRecord(
        model=base.model,
        shape=base.shape,
        granularity=base.cuts.granularity,
        max_tensors=base.cuts.max_tensors,
        leaves=base.cuts.leaves,
        after=tuned.after,
        block=tuned.chain.costs[tuned.after].name,
        layer=tuned.layer,
        mode=tuned.options.mode,
        epochs=tuned.options.epochs,
        accuracy={
            "before": tuned.accuracy_before,
            "inserted": tuned.accuracy_inserted,
            "tuned": tuned.accuracy_tuned,
        },
        error=tuned.drop.error,
        validation=tuned.validation,
        best_epoch=tuned.best_epoch,
        fingerprint=tuned.chain.fingerprint,
        weights_sha256=hashlib.sha256(data).hexdigest(),
    )
    replace_bytes(folder / _WEIGHTS, data)
    replace_bytes(folder / _RECORD, (json.dumps(record.model_dump(mode="json"), indent=1) + "\n").encode())
    return record


def load_tuned(folder: Path, network: nn.Module | None = None) -> Chain:
    """The tuned network, in eval mode, cut as it was, with its transfer layer.

    network: the untuned one, needed where it is not a reference network; its weights are replaced. Raises ModelError
    when the folder is incomplete or damaged, or the network is another one.
    """
    record = read_record(folder)
    module = network if network is not None else _reference(record, folder)
    options = CutOptions(record.granularity, record.max_tensors, record.leaves)
    chain = cut(module.eval(), torch.zeros(1, *record.shape), options=options)
    if record.layer is not None:
        chain = with_transfer(chain, record.after, layer_behind(chain, record.after, record.layer))
    if chain.fingerprint != record.fingerprint:
        raise ModelError(f"{folder} was tuned for another network than {record.model!r} is now; tune it again")
    path = folder / _WEIGHTS
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != record.weights_sha256:
            raise ModelError(f"{path} is not what tuned.json beside it was written for; tune the network again")
        tensors = safetensors.torch.load(data)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; tune the network again") from error
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is damaged: {error}; tune the network again") from error
    own = weights_of(chain)
    if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in tensors.items()}:
        raise ModelError(f"{path} holds other tensors than {record.model!r} has; tune it again")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return chain.eval()


def read_record(folder: Path) -> TunedRecord:
    """What tuned.json says. Raises ModelError when it is absent, too large, or says something else."""
    path = folder / _RECORD
    try:
        if path.stat().st_size > LARGEST_RECORD:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; at most {LARGEST_RECORD} are read")
        return TunedRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror}; make it with: edgeward split tune MODEL -o {folder}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise ModelError(f"{path}: {where}: {first['msg']}; tune the network again") from error


def layer_behind(chain: Chain, after: int, text: str) -> TransferLayer:
    """The layer of that name for what crosses behind a block. Raises ConfigError for names that are unknown."""
    shape = fitting(chain).get(after)
    return parse_transfer(text, shape[1] if shape is not None else 1)


def _reference(record: TunedRecord, folder: Path) -> nn.Module:
    from edgeward.zoo.reference import REFERENCES, build

    if record.model not in REFERENCES:
        raise ModelError(
            f"{folder} was tuned from {record.model!r}; give that network: "
            f"load_tuned(folder, open_network({record.model!r}).module)"
        )
    return build(record.model)
