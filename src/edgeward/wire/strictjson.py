"""JSON from strangers: no duplicate keys, no NaN, no deep nesting, nothing that cannot be written again.

dump({"stage": 2})          # b'{"stage":2}'
load(b'{"stage":NaN}')      # WireError
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Never

from edgeward.errors import WireError

__all__ = ["MAX_DEPTH", "dump", "load"]

MAX_DEPTH = 32


def dump(value: object) -> bytes:
    """Compact UTF-8 JSON. Raises WireError for what is not JSON."""
    _check(value, 0)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict).encode()
    except (ValueError, TypeError) as error:
        raise WireError(f"the message's values cannot be written as JSON: {error}") from error


def load(text: memoryview) -> Any:
    """The value of UTF-8 JSON. Raises WireError for anything malformed, ambiguous or deeper than `MAX_DEPTH`."""
    try:
        value = json.loads(str(text, "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the message's JSON is damaged: {error}") from error
    _check(value, 0)
    return value


def _check(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError(f"the message's values are nested deeper than {MAX_DEPTH} levels; flatten them")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise WireError("a text of the message holds half a character (a lone surrogate); send whole characters")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise WireError(f"key {key!r:.50} of the message's values is not a text; write str(key)")
            _check(key, depth + 1)
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif value is not None and not isinstance(value, bool | int | float):
        raise WireError(
            f"{type(value).__name__} is not JSON; use texts, numbers, lists and dicts in a message's values"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.30} is beyond the range of a number")
    return value
