"""A network by what a user calls it: of the zoo, a factory in a Python file, or a transformers config.

    network = open_network("resnet50")
    network = open_network("ssdlite-person")           # a packaged model, trained; see `zoo.packaged`
    network = open_network("nanodet=nanodet.json")     # the same with its weights from a file
    network = open_network("nets.py:build")            # a function or class in the user's own file
    network = open_network("folder/config.json")       # built from its config, weights beside it if there are any
    network = open_network("folder")                   # the same, or a folder of `zoo.artefact`

Only a Python file that is named is run as code. Weights are read from safetensors, or by the zoo's own readers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeward.errors import ConfigError, MissingExtra, ModelError, nearest
from edgeward.zoo.pruned import Edits, edit

if TYPE_CHECKING:
    from edgeward.zoo.packaged import Packaged

__all__ = ["Network", "example_of", "network_of_recipe", "open_network", "pruned_recipe"]

LARGEST_CONFIG = 4 << 20
_MAX_ELEMENTS = 1 << 30
_MOST_CLASSES = 1 << 20


@dataclass(frozen=True)
class Network:
    """A module, its name, and the shape of one sample of its input; `tokens` when the input is token numbers.

    recipe: what `network_of_recipe` builds the same structure from on another machine; None for the user's own code and
    for packaged models, which travel as ONNX.
    """

    name: str
    module: nn.Module
    sample_shape: tuple[int, ...] | None
    tokens: int | None = None
    recipe: Mapping[str, Any] | None = None


def network_of_recipe(recipe: Mapping[str, Any]) -> nn.Module:
    """The structure that a recipe describes; weights are random.

    A recipe is {"reference": NAME}, with "classes" if not the published number; {"config": a transformers config}; or
    {"pruned": {"base": one of these, "edits": what `Edits.to_json` gives}}. Raises ConfigError or ModelError.
    """
    if "pruned" in recipe:
        return _pruned(recipe["pruned"])
    if "reference" in recipe:
        from edgeward.zoo.reference import build

        return build(str(recipe["reference"]), _classes(recipe.get("classes")))
    return _of_config(recipe.get("config"), "a network's config")


def pruned_recipe(base: Mapping[str, Any], edits: Edits) -> dict[str, Any]:
    """The recipe of a network with these edits against the one of `base`, which may itself be pruned."""
    if "pruned" in base:
        return pruned_recipe(base["pruned"]["base"], Edits.of_json(base["pruned"]["edits"]).then(edits))
    return {"pruned": {"base": dict(base), "edits": edits.to_json()}}


def _pruned(record: Any) -> nn.Module:
    if not isinstance(record, dict) or not isinstance(record.get("base"), dict) or "pruned" in record["base"]:
        raise ModelError("the recipe of a pruned network needs its 'base', which is no pruned one, and its 'edits'")
    edits = Edits.of_json(record.get("edits"))
    return edit(network_of_recipe(record["base"]), edits)


def _classes(value: Any) -> int | None:
    if value is None or (type(value) is int and 1 <= value <= _MOST_CLASSES):
        return value
    raise ConfigError(f"a recipe asks for {value!r} classes; it is a whole number from 1 to {_MOST_CLASSES}")


def open_network(spec: str) -> Network:
    """The network that `spec` names (see the module's first lines).

    Raises ConfigError when it is none of those forms, ModelError when the file is absent or does not give a module.
    """
    from edgeward.zoo.packaged import PACKAGED

    name, _, file = spec.partition("=")
    if name in PACKAGED:
        return _packaged(PACKAGED[name], Path(file) if file else None)
    path, colon, factory = spec.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), factory)
    if spec.endswith(".py"):
        raise ConfigError(f"{spec} needs the name of the function that builds the network; write {spec}:NAME")
    if Path(spec).is_dir() or spec.endswith(".json"):
        return _from_config(Path(spec) / "config.json" if Path(spec).is_dir() else Path(spec))
    from edgeward.zoo.reference import REFERENCES, build

    if spec in REFERENCES:
        return Network(spec, build(spec), REFERENCES[spec].input_shape, recipe={"reference": spec})
    if colon:
        raise ConfigError(
            f"{spec} is an import path, and importing it would run code outside your own file; "
            f"name the file: path/to/file.py:{factory}"
        )
    if spec.endswith((".onnx", ".pt", ".pth", ".safetensors")):
        raise ConfigError(f"{spec} holds no network that can be cut; give the code that builds it: file.py:NAME")
    raise ConfigError(
        f"no network {spec!r}; {nearest(spec, [*REFERENCES, *PACKAGED])}; or give file.py:NAME or a transformers "
        "config.json"
    )


def _packaged(entry: Packaged, file: Path | None) -> Network:
    try:
        module = entry.load(file)
    except ModelError as error:
        hint = f"; as a network write {entry.name}=FILE" if file is None and entry.member is None else ""
        raise ModelError(f"{error}{hint}") from error
    return Network(entry.name, module, entry.card.preprocess.shape)


def _from_file(path: Path, factory: str) -> Network:
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give the Python file that builds the network")
    spec = importlib.util.spec_from_file_location(f"_network_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and the like look their own module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything
        raise ModelError(f"{path} fails when it is run: {type(error).__name__}: {error}") from error
    made = getattr(module, factory, None)
    if made is None:
        own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{path} has no {factory!r}; {nearest(factory, own)}")
    network = made if isinstance(made, nn.Module) else _called(made, f"{path}:{factory}")
    return Network(f"{path.name}:{factory}", network, getattr(module, "INPUT_SHAPE", None))


def _called(factory: Callable[[], Any], where: str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = factory()
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{where} fails: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"{where} returns {type(made).__name__}; it must return a torch.nn.Module")
    return made


def _from_config(path: Path) -> Network:
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; a config has at most {LARGEST_CONFIG}")
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if isinstance(record, dict) and "format" in record:
        from edgeward.zoo.artefact import load_network

        # By its place, as a plan for it must find it again.
        return replace(load_network(path.parent), name=str(path.parent))
    module = _of_config(record, str(path))
    config: Any = module.config
    if (path.parent / "model.safetensors").is_file():
        _load_weights(module, path.parent / "model.safetensors")
    recipe = {"config": record}
    size = getattr(config, "image_size", None)
    vocabulary = getattr(config, "vocab_size", None)
    if size is not None:
        sample = (getattr(config, "num_channels", 3), size, size)
        return Network(str(record["model_type"]), module, sample, recipe=recipe)
    return Network(str(record["model_type"]), module, None if vocabulary is None else (32,), vocabulary, recipe)


def _of_config(record: Any, where: str) -> nn.Module:
    architectures = record.get("architectures") if isinstance(record, dict) else None
    if not architectures or not record.get("model_type"):
        raise ModelError(f"{where} names no 'model_type' and 'architectures'; a transformers config.json does")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported; nothing is fetched at run time
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra("transformers", "llm") from error
    known = getattr(transformers, str(architectures[0]), None)
    if not (isinstance(known, type) and issubclass(known, transformers.PreTrainedModel)):
        raise ModelError(
            f"{where}: this transformers ({transformers.__version__}) has no architecture {architectures[0]!r}"
        )
    try:
        assert known.config_class is not None
        config = known.config_class(**record)
        config.use_cache = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = known(config)
    except Exception as error:  # configs fail in as many ways as there are architectures
        raise ModelError(f"{where}: {architectures[0]} cannot be built: {type(error).__name__}: {error}") from error
    return module


def _load_weights(module: nn.Module, file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        missing, unexpected = module.load_state_dict(load_file(file), strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f"{file} does not fit the config beside it: {' '.join(str(error).split())[:200]}") from error
    tied = set(getattr(module, "all_tied_weights_keys", None) or ())
    absent = sorted(set(missing) - tied)
    if absent or unexpected:
        raise ModelError(
            f"{file} does not fit the config beside it: {len(absent)} tensors missing, {len(unexpected)} unknown"
        )


def example_of(network: Network, shape: str | None, batch: int) -> Tensor:
    """An example input: `shape` such as "3x224x224" (one sample), or the network's own; random, always the same.

    Raises ConfigError when there is no shape, or it is malformed or too large.
    """
    sample = network.sample_shape
    if shape is not None:
        try:
            sample = tuple(int(part) for part in shape.lower().split("x"))
        except ValueError as error:
            raise ConfigError(f"--input {shape}: write the shape of one sample like 3x224x224") from error
    if sample is None:
        raise ConfigError(f"the input shape of {network.name} is not known; add --input, for example --input 3x224x224")
    count = batch
    for side in sample:
        count *= side
    if min(sample) < 1 or not 1 <= count <= _MAX_ELEMENTS or batch < 1:
        raise ConfigError(f"an input of {batch} x {'x'.join(map(str, sample))} is outside 1 to {_MAX_ELEMENTS} values")
    generator = torch.Generator().manual_seed(0)
    if network.tokens is not None:
        return torch.randint(network.tokens, (batch, *sample), generator=generator)
    return torch.rand((batch, *sample), generator=generator)
