"""A network as a folder: what it is as JSON, its weights as safetensors; it opens in any process, bit for bit.

    save_network(Network("small", module, (3, 32, 32), recipe=dense.recipe), Path("small"), edits=removed.edits)
    load_network(Path("small")).module                                      # or open_network("small")

    config.json         format, version, name, recipe (with the kept channels), input shape, hashes of the other files
    model.safetensors   parameters and buffers
    profile.json        a report in the caller's words, if there is one
    model.onnx          the same network for ONNX Runtime, if there is one

Nothing in the folder is ever run as code: a network of the user's own code needs the function that builds it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from edgeward.errors import ModelError, StoreError
from edgeward.zoo.files import read_bytes, sha256, size
from edgeward.zoo.network import LARGEST_CONFIG, Network, network_of_recipe, pruned_recipe
from edgeward.zoo.pruned import Edits, edit

__all__ = ["FORMAT", "VERSION", "Extras", "check_place", "load_edits", "load_network", "load_report", "save_network"]

FORMAT = "edgeward-network"
VERSION = 1
_LARGEST_WEIGHTS = 64 << 30
_LARGEST_REPORT = 64 << 20
_CONFIG, _WEIGHTS, _REPORT, _ONNX = "config.json", "model.safetensors", "profile.json", "model.onnx"


@dataclass(frozen=True)
class Extras:
    """What may lie beside the weights: a report (anything JSON holds), and an exported model file to copy."""

    report: Mapping[str, Any] | None = None
    onnx: Path | None = None


def save_network(network: Network, folder: Path, edits: Edits | None = None, extras: Extras | None = None) -> None:
    """Write a network as a folder, wholly or not at all.

    edits: how its module differs from what the network's recipe (or the user's own function) builds. A folder that
    holds such a network already is replaced. Raises StoreError when the disk refuses or the folder holds other files,
    ModelError when the recipe is larger than what `load_network` reads.
    """
    check_place(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            work.chmod(0o755)
            _write(work, network, edits, extras or Extras())
            for path in work.iterdir():
                path.chmod(0o644)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            _replace(folder, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; free some space or choose another place") from error


def _write(work: Path, network: Network, edits: Edits | None, extras: Extras) -> None:
    recipe: Mapping[str, Any] = {"factory": network.name} if network.recipe is None else network.recipe
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.module.state_dict().items()}
    save_file(state, work / _WEIGHTS)
    if extras.report is not None:
        (work / _REPORT).write_text(json.dumps(extras.report, indent=1) + "\n", encoding="utf-8")
    if extras.onnx is not None:
        shutil.copyfile(extras.onnx, work / _ONNX)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "name": network.name,
        "input_shape": None if network.sample_shape is None else list(network.sample_shape),
        "tokens": network.tokens,
        "sha256": {path.name: sha256(path) for path in sorted(work.iterdir())},
        "recipe": recipe if edits is None else pruned_recipe(recipe, edits),
    }
    text = json.dumps(record) + "\n"
    if len(text) > LARGEST_CONFIG:
        raise ModelError(f"the config of {network.name} takes {len(text)} bytes; at most {LARGEST_CONFIG} are read")
    (work / _CONFIG).write_text(text, encoding="utf-8")


def check_place(folder: Path) -> None:
    """Raise StoreError where `save_network` would: for a file, other files in the folder, a place without rights."""
    if folder.exists() and not _ours(folder):
        raise StoreError(f"{folder} exists and is no network of edgeward; choose another place")
    above = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = "cannot be written" if above.is_dir() else "is a file"
        raise StoreError(f"{folder} cannot be made, for {above} {reason}; choose another place")


def load_network(folder: Path, factory: Callable[[], nn.Module] | None = None) -> Network:
    """The network in a folder, in eval mode.

    factory: builds the dense network, where that is the user's own code. Raises ModelError when the folder is
    incomplete, was changed, is of a newer version, or needs the factory.
    """
    record = _record(folder)
    recipe = record["recipe"]
    for name, digest in record["sha256"].items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{folder} is incomplete: {name} is missing; copy the whole folder again")
        size(path, _LARGEST_WEIGHTS)
        if sha256(path) != digest:
            raise ModelError(f"{path} was changed after it was saved (its SHA-256 is another); obtain the folder again")
    base = recipe.get("pruned", {}).get("base", recipe)
    if "factory" in base:
        module = _own(folder, str(base["factory"]), factory)
        if "pruned" in recipe:
            module = edit(module, Edits.of_json(recipe["pruned"].get("edits")))
    else:
        module = network_of_recipe(recipe)
    _load(module, folder / _WEIGHTS)
    shape = record["input_shape"]
    return Network(
        record["name"],
        module.eval(),
        None if shape is None else tuple(shape),
        record["tokens"],
        None if "factory" in base else recipe,
    )


def load_edits(folder: Path) -> Edits:
    """How the network in a folder differs from its dense one: sizes, and the channels that were kept.

    Raises ModelError when it cannot be read.
    """
    pruned = _record(folder)["recipe"].get("pruned")
    return Edits() if pruned is None else Edits.of_json(pruned.get("edits"))


def load_report(folder: Path) -> Any:
    """The report beside a network, None when there is none. Raises ModelError when it cannot be read."""
    _record(folder)
    path = folder / _REPORT
    if not path.is_file():
        return None
    try:
        return json.loads(read_bytes(path, _LARGEST_REPORT))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error


def _record(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise ModelError(f"{folder} is no network of edgeward: it has no {_CONFIG}")
    try:
        record = json.loads(read_bytes(path, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelError(f"{path} is not of the format {FORMAT!r}; give a folder that edgeward wrote")
    version = record.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ModelError(f"{path} is of version {version}; this edgeward reads up to {VERSION}: install a newer one")
    shape, tokens, hashes = record.get("input_shape"), record.get("tokens"), record.get("sha256")
    sound = (
        isinstance(record.get("name"), str)
        and (shape is None or (isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)))
        and (tokens is None or (type(tokens) is int and tokens > 0))
        and isinstance(hashes, dict)
        and {_WEIGHTS} <= set(hashes) <= {_WEIGHTS, _REPORT, _ONNX}
        and isinstance(record.get("recipe"), dict)
        and isinstance(record["recipe"].get("pruned", {}), dict)
        and isinstance(record["recipe"].get("pruned", {}).get("base", {}), dict)
    )
    if not sound:
        raise ModelError(f"{path} lacks what a network needs, or holds it malformed; obtain the folder again")
    return {**record, "tokens": tokens, "input_shape": shape}


def _own(folder: Path, name: str, factory: Callable[[], nn.Module] | None) -> nn.Module:
    if factory is None:
        raise ModelError(
            f"{folder} was made of your own code ({name}), which is not stored in it; "
            "open it with load_network(folder, factory=the function that builds the dense network)"
        )
    module = factory()
    if not isinstance(module, nn.Module):
        raise ModelError(f"the factory for {folder} returns {type(module).__name__}; it must return a torch.nn.Module")
    return module


def _load(module: nn.Module, path: Path) -> None:
    try:
        state = load_file(path)
        for name, value in {**dict(module.named_parameters()), **dict(module.named_buffers())}.items():
            if name in state:  # as stored: a network of halves comes back as one
                value.data = value.data.to(state[name].dtype)
        module.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f"{path} does not fit its config: {' '.join(str(error).split())[:200]}") from error


def _ours(folder: Path) -> bool:
    try:
        names = {path.name for path in folder.iterdir()}
        return not names or (names <= {_CONFIG, _WEIGHTS, _REPORT, _ONNX} and _record(folder)["format"] == FORMAT)
    except (ModelError, OSError):
        return False


def _replace(folder: Path, work: Path) -> None:
    """Put a finished folder in its place; an older one steps aside first, and goes last."""
    if not folder.exists():
        work.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(aside / "old")
    try:
        work.rename(folder)
    except OSError:
        (aside / "old").rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
