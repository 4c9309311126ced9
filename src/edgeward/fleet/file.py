"""Reading a fleet from its TOML file.

fleet = load_fleet(Path("fleet.toml"))

name = "lab"
[[device]]
name = "pi"
tier = "device"
compute = "25 %"
[[link]]
between = ["pi", "box"]
bandwidth = "20 Mbit/s"
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeward.errors import ConfigError, nearest
from edgeward.fleet.fleet import Device, Fleet, Link, Zone

__all__ = ["MAX_BYTES", "load_fleet", "parse_fleet"]

MAX_BYTES = 1 << 20
_TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    "device": ("devices", Device),
    "link": ("links", Link),
    "zone": ("zones", Zone),
}
_KEYS = ("name", "source", *_TABLES)


def load_fleet(path: Path) -> Fleet:
    """The fleet that a TOML file describes; a relative `trace` is looked for beside the file.

    Raises ConfigError in one line that names file, key and what is allowed.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"{path} has {size} bytes; a fleet file has at most {MAX_BYTES}")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the path of a fleet file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    return parse_fleet(text, str(path), path.resolve().parent)


def parse_fleet(text: str, origin: str, folder: Path) -> Fleet:
    """The fleet described by TOML `text`. origin: names it in messages. folder: where relative traces are."""
    try:
        record = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: nested too deeply to be a fleet file") from error
    for key in record:
        if key not in _KEYS:
            raise ConfigError(f"{origin}: {key}: unknown key; {nearest(key, _KEYS)}")
    values = {key: value for key, value in record.items() if key not in _TABLES}
    for key, (field, _) in _TABLES.items():
        values[field] = _tables(record.get(key, []), f"{origin}: {key}")
    try:
        fleet = Fleet.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + "; ".join(_sentence(one, values) for one in error.errors()[:3])) from error
    return fleet.model_copy(update={"links": tuple(_located(link, folder) for link in fleet.links)})


def _tables(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError(f"{where}: write each one as a table that begins with [[{where.split()[-1]}]]")
    return value


def _located(link: Link, folder: Path) -> Link:
    if link.trace is None or link.trace.is_absolute():
        return link
    return link.model_copy(update={"trace": folder / link.trace})


def _sentence(problem: Any, values: Any) -> str:
    """One validation error as "where: what (given: value)"."""
    table, model = next(
        ((key, kind) for key, (field, kind) in _TABLES.items() if problem["loc"][:1] == (field,)), ("", Fleet)
    )
    place = [str(part) for part in problem["loc"]]
    if table:
        place = [f"{table} {int(part) + 1}" if i == 1 else part for i, part in enumerate(place)][1:] or [f"[[{table}]]"]
    where = ", ".join(place)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(place[-1], model.model_fields)}"
    if problem["type"] == "missing":
        return f"{where}: this is required; add it"
    if problem["type"] == "too_short" and table:
        return f"{where}: at least one is required; add it"
    message = problem["msg"].removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    given = _as_written(values, problem["loc"])
    shown = (
        f" (given: {given!r})"
        if isinstance(given, int | float) or (isinstance(given, str) and repr(given) not in message)
        else ""
    )
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def _as_written(values: Any, place: tuple[int | str, ...]) -> Any:
    """What the file says at a place, since a message should not show what became of it."""
    for part in place:
        inside = values.get(part) if isinstance(values, dict) else None
        values = values[part] if isinstance(values, list) and isinstance(part, int) else inside
    return values
