"""Reading a box's YAML file: duplicate and unknown keys, overrides, messages a person can act on.

config = load_config(Path("box.yaml"), overrides=["cameras.street.rate=5"])
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from edgeward.errors import ConfigError, nearest
from edgeward.serve.config import BoxConfig
from edgeward.serve.modelconfig import IN_TURN, LONGEST_RUNG, TOGETHER

__all__ = ["load_config", "parse_config"]

MAX_BYTES = 1 << 20


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise ConfigError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> BoxConfig:
    """The box described by `path` (the bundled default when None), with `a.b=c` overrides applied.

    Raises ConfigError for whatever is wrong, naming the key and the allowed values.
    """
    if path is None:
        text = (resources.files("edgeward.serve") / "default.yaml").read_text()
        return parse_config(text, "bundled default", overrides).resolved(Path.cwd())
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes; a box file has at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    return parse_config(text, str(path), overrides).resolved(path.resolve().parent)


def parse_config(text: str, origin: str, overrides: Sequence[str] = ()) -> BoxConfig:
    """The box described by YAML `text`; `origin` names it in messages."""
    try:
        # A subclass of SafeLoader: plain values only.
        record = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{origin}{where}: not YAML: {getattr(error, 'problem', error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: nested too deeply to be a box file") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{origin}: expected keys such as cameras, models, queries; see edgeward serve --schema")
    for override in overrides:
        _override(record, override)
    try:
        return BoxConfig.model_validate(record)
    except ValidationError as error:
        problems = [_sentence(problem) for problem in _root_causes(error)]
        raise ConfigError(f"{origin}: " + "; ".join(problems)) from error


def _override(record: dict[str, Any], text: str) -> None:
    """Set `a.b=c` in place; list items are chosen by number or by their name."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {text}: write it as key.subkey=value")
    *parents, last = path.split(".")
    place: Any = record
    for part in parents:
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = place[_slot(place, part, text)]
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        parsed = value
    place[last if isinstance(place, dict) else _slot(place, last, text)] = parsed


def _slot(place: Any, part: str, text: str) -> Any:
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise ConfigError(f"--set {text}: nothing lies below {part!r}")
    names = [_item_name(item, index) for index, item in enumerate(place)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(place):
        return int(part)
    raise ConfigError(f"--set {text}: no item {part!r}; {nearest(part, names)}")


def _item_name(item: Any, index: int) -> str:
    """What an item of a list is called: its name, the name a query gets from camera and model, or its number."""
    if not isinstance(item, dict):
        return str(index)
    made = f"{item['camera']}-{item['model']}" if {"camera", "model"} <= item.keys() else str(index)
    return str(item.get("name", made))


def _root_causes(error: ValidationError) -> list[Any]:
    """The problems of an error, less the "too short" that a list gets because an item of it is wrong."""
    problems = error.errors()
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(other is not problem and other["loc"][: len(problem["loc"])] == problem["loc"] for other in problems)
    ]


def _sentence(problem: Any) -> str:
    """One validation error as "where: what"."""
    location = [part for part in problem["loc"] if not _is_union_tag(part)]
    where = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(str(location[-1]), _keys_at(BoxConfig, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: this key is required"
    if problem["type"] in ("tuple_type", "list_type"):
        return f"{where}: write a list, each item on a line that begins with '- '"
    rung = location[:1] == ["ladders"] and "models" in location
    if problem["type"] == "string_pattern_mismatch" or (rung and problem["type"] == "string_too_long"):
        if location[:1] == ["queries"] and any(mark in problem["input"] for mark in (TOGETHER, IN_TURN)):
            return f"{where}: a query names a ladder; list {problem['input']!r} among a ladder's models, and name that"
        return f"{where}: {_misnamed(problem['input'], rung)}"
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: write keys with values below it; see edgeward serve --schema"
    message = problem["msg"].removeprefix("Value error, ").replace(" tuple", " list").replace("Tuple ", "a list ")
    given = problem.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def _misnamed(text: str, rung: bool) -> str:
    """What is wrong with a name; that of a rung may be several with '+' or '~' between."""
    parts = text.replace(IN_TURN, TOGETHER).split(TOGETHER) if rung else [text]
    long = next((part for part in parts if len(part) > 64), None)
    if long is not None:
        return f"the name {long[:64]!r}... has {len(long)} characters; use at most 64"
    if rung and len(text) > LONGEST_RUNG:
        return f"the names in {text[:64]!r}... have {len(text)} characters together; use at most {LONGEST_RUNG}"
    together = f", or several names, all with {TOGETHER!r} or all with {IN_TURN!r} between" if rung else ""
    return f"{text!r} is not a name; use letters, digits, '_', '.', '-', at most 64{together}"


def _is_union_tag(part: Any) -> bool:
    return isinstance(part, str) and any(mark in part for mark in ("[", "literal", "tuple", "constrained", "function-"))


def _keys_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """The keys that `model` knows at a place inside it."""
    current = model
    for part in location:
        if isinstance(part, str) and part in current.model_fields:
            current = _section(current.model_fields[part].annotation) or current
    return list(current.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner)) is not None), None)
