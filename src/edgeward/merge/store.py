"""Merged models on disk: every tensor once, a manifest for each model; any of them opens alone or all together.

    save_merged(Path("merged"), [Merged(network, accuracy=0.93, unmerged=0.95, target=0.95), ...])
    load_one(Path("merged"), "cars")                     # a module
    load_all(Path("merged"))["cars"]                     # equal tensors are one and the same memory

    tensors/HASH.safetensors    a segment of `weights.store`: tensors named by SHA-256 of dtype, shape and bytes
    models/NAME.json            format, version, recipe, and which tensor every parameter and buffer is

What is read is checked: sizes before anything is allocated, hashes before anything is used, and nothing is run as code.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeward.errors import ModelError, StoreError
from edgeward.merge.deltas import add_delta, deltas
from edgeward.merge.manifest import Manifest, names, read_manifest, write_manifest
from edgeward.weights.store import TensorRef, WeightStore, digest_of, read_header
from edgeward.zoo.network import Network, network_of_recipe

__all__ = ["Merged", "check_place", "load_all", "load_one", "publish", "save_merged"]

_TENSORS = "tensors"

Factory = Callable[[], nn.Module]


@dataclass(frozen=True)
class Merged:
    """A model to store. accuracy: as it is; unmerged: before merging; target: the share of it that was asked for."""

    network: Network
    accuracy: float | None = None
    unmerged: float | None = None
    target: float | None = None


def save_merged(folder: Path, models: Sequence[Merged], files: Mapping[str, str] | None = None) -> None:
    """Write models as a folder, wholly or not at all; an older one of this kind is replaced.

    files: texts to put beside, by name. Raises StoreError for two models of one name, a folder that holds other things,
    or a disk that refuses; ModelError for tensors of a dtype that cannot be stored.
    """
    called = [one.network.name for one in models]
    for name in called:
        if called.count(name) > 1:
            raise StoreError(f"two models are called {name!r}; give each a name of its own")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            work.chmod(0o755)
            _write(work, models)
            for name, text in (files or {}).items():
                (work / name).write_text(text, encoding="utf-8")
            publish(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; free some space or choose another place") from error


def check_place(folder: Path) -> None:
    """Raise StoreError where merged models must not be written: a file, or a folder that holds anything else."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or names(folder))):
        raise StoreError(f"{folder} exists and holds no merged models; choose another place")


def publish(work: Path, folder: Path) -> None:
    """Put a finished folder in the place of `folder`; an older one steps aside first, and goes last.

    Raises StoreError when `folder` holds anything but merged models, or the disk refuses.
    """
    check_place(folder)
    try:
        for path in work.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if not folder.exists():
            work.rename(folder)
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            folder.rename(aside / "old")
            work.rename(folder)
        except BaseException:
            if not folder.exists():  # also when interrupted in between: the only finished copy must not go
                (aside / "old").rename(folder)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; free some space or choose another place") from error


def _write(work: Path, models: Sequence[Merged]) -> None:
    arrays: dict[tuple[str, str], npt.NDArray[Any]] = {}
    for one in models:
        for path, tensor in _state(one.network.module).items():
            try:
                arrays[one.network.name, path] = tensor.detach().cpu().contiguous().numpy()
            except TypeError as error:
                raise ModelError(f"{path} of {one.network.name} is {tensor.dtype}; use float32 or float16") from error
    refs = dict(zip(arrays, WeightStore(work / _TENSORS).put(list(arrays.values())), strict=True))
    for one in models:
        network = one.network
        digests = {path: refs[network.name, path].digest for path in _state(network.module)}
        own = {path for path, _ in network.module.named_parameters(remove_duplicate=False)}
        manifest = Manifest(
            network.name,
            None if network.recipe is None else dict(network.recipe),
            network.sample_shape,
            network.tokens,
            {path: digest for path, digest in digests.items() if path in own},
            {path: digest for path, digest in digests.items() if path not in own},
            deltas(network.module),
            one.accuracy,
            one.unmerged,
            one.target,
        )
        write_manifest(work, manifest)


def load_one(folder: Path, name: str, factory: Factory | None = None) -> nn.Module:
    """One model, in eval mode, with memory of its own.

    factory: builds the network where it has no recipe. Raises StoreError when a tensor is missing or was changed,
    ModelError when the tensors do not fit the network.
    """
    return _load(folder, {name: factory})[name]


def load_all(folder: Path, factories: Mapping[str, Factory] | None = None) -> dict[str, nn.Module]:
    """All models, in eval mode; parameters of equal content are one `nn.Parameter`, so they share memory.

    For inference: what is equal by chance (biases of zeros) is one tensor too. Raises as `load_one` does, and
    StoreError when the folder holds no merged models.
    """
    known = names(folder)
    if not known:
        raise StoreError(f"{folder} holds no merged models; give a folder that `edgeward merge` wrote")
    return _load(folder, {name: (factories or {}).get(name) for name in known})


def _load(folder: Path, wanted: Mapping[str, Factory | None]) -> dict[str, nn.Module]:
    manifests = {name: read_manifest(folder, name) for name in wanted}
    needed = {one for each in manifests.values() for one in (*each.parameters.values(), *each.buffers.values())}
    tensors = _tensors(folder, needed)
    shared: dict[str, nn.Parameter] = {}
    return {name: _filled(manifest, tensors, shared, wanted[name]) for name, manifest in manifests.items()}


def _filled(
    manifest: Manifest, tensors: Mapping[str, Tensor], shared: dict[str, nn.Parameter], factory: Factory | None
) -> nn.Module:
    if manifest.recipe is not None:
        module = network_of_recipe(manifest.recipe)
    elif factory is not None:
        module = factory()
    else:
        raise ModelError(
            f"{manifest.name} was made of your own code, which is not stored; give the function that builds it"
        )
    for path, rank in manifest.deltas.items():
        if path not in dict(module.named_modules()) or not add_delta(module, path, rank):
            raise ModelError(f"{manifest.name} has no layer {path!r} that takes a correction of rank {rank}")
    stored = {**manifest.parameters, **manifest.buffers}
    state = _state(module)
    if stored.keys() != state.keys():
        odd = sorted(stored.keys() ^ state.keys())
        raise ModelError(f"the stored {manifest.name} differs from the network that its code builds, in {odd[0]}")
    for path, digest in stored.items():
        if tensors[digest].shape != state[path].shape:
            shapes = f"{list(tensors[digest].shape)}, not {list(state[path].shape)}"
            raise ModelError(f"{path} of {manifest.name} is stored with shape {shapes}")
        owner, _, last = path.rpartition(".")
        if path in manifest.buffers:
            setattr(module.get_submodule(owner), last, tensors[digest].clone())
        else:
            if digest not in shared:
                shared[digest] = nn.Parameter(tensors[digest], tensors[digest].is_floating_point())
            setattr(module.get_submodule(owner), last, shared[digest])
    return module.eval()


def _tensors(folder: Path, needed: set[str]) -> dict[str, Tensor]:
    """The tensors of these digests, checked."""
    refs: dict[str, TensorRef] = {}
    for path in sorted((folder / _TENSORS).glob("*.safetensors")):
        refs |= {ref.digest: ref for ref in read_header(path)}
    missing = sorted(needed - refs.keys())
    if missing:
        raise StoreError(f"{folder} lacks {len(missing)} tensors, such as {missing[0][:12]}; obtain the folder again")
    store, found = WeightStore(folder / _TENSORS), {}
    for digest in sorted(needed):
        view = store.borrow(refs[digest])
        if digest_of(view) != digest:
            raise StoreError(f"tensor {digest[:12]} in {folder} was changed (its SHA-256 is another); obtain it again")
        found[digest] = torch.from_numpy(np.array(view))
    return found


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by path, shared ones under every path."""
    return {path: value for path, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
