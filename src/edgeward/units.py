"""Quantities people write and read: "64 MiB" and back.

parse_bytes("1.5 GiB")   # 1610612736
format_bytes(12_345_678) # '11.8 MiB'
"""

from __future__ import annotations

import re

__all__ = ["format_bytes", "parse_bytes"]

_POWERS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_POWERS["ti"] = 1 << 40


def parse_bytes(text: str | int) -> int:
    """Bytes from a whole number or a text such as "64 MiB", "1.5GB", "2048".

    Raises ValueError that states the accepted form.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        amount, unit = float(text), ""
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(text).lower())
        if match is None:
            raise ValueError(f"{text!r} is not a size; write it like '64 MiB', '1.5 GB' or a number of bytes")
        amount, unit = float(match[1]), match[2] or ""
    if amount < 0:
        raise ValueError(f"{text!r} is negative; a size is at least 0")
    return round(amount * _POWERS[unit])


def format_bytes(count: float) -> str:
    """A size for people, in binary units, three significant digits."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
