"""Quantities people write and read: "64 MiB" and back.

parse_bytes("1.5 GiB")      # 1610612736
format_bytes(12_345_678)    # '11.8 MiB'
parse_rate("20 Mbit/s")     # 20_000_000.0 bits per second
parse_seconds("45 ms")      # 0.045
parse_share("25 %")         # 0.25
"""

from __future__ import annotations

import re

__all__ = ["format_bytes", "format_rate", "format_seconds", "parse_bytes", "parse_rate", "parse_seconds", "parse_share"]

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


def parse_rate(text: str | float) -> float:
    """Bits per second from a text such as "20 Mbit/s", "1.6 mbps", "10 MB/s", or from a number of bits per second.

    Prefixes are decimal. Raises ValueError that states the accepted form.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _finite(float(text), text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(bit/s|bits/s|bps|b/s|byte/s|bytes/s)\s*", str(text).lower())
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write it like '20 Mbit/s', '800 kbit/s' or '2.5 MB/s'")
    in_bytes = match[3].startswith("byte") or str(text).rstrip().endswith("B/s")
    return float(match[1]) * _POWERS[match[2]] * (8 if in_bytes else 1)


_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}


def parse_seconds(text: str | float) -> float:
    """Seconds from a text such as "45 ms", "1.5 s", "2 min", or from a number of seconds.

    Raises ValueError that states the accepted form.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _finite(float(text), text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]*)\s*", str(text).lower())
    if match is None or match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is not a duration; write it like '45 ms', '1.5 s' or a number of seconds")
    return float(match[1]) * _SECONDS[match[2]]


def parse_share(text: str | float) -> float:
    """A share from a text such as "25 %", or from a number such as 0.25. Raises ValueError for anything else."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _finite(float(text), text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a share; write it like '25 %' or 0.25")
    return float(match[1]) / (100 if match[2] else 1)


def format_rate(bits_per_second: float) -> str:
    """A rate for people, in decimal units of bits."""
    for power, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits_per_second >= 0.9995 * power:
            return f"{_three(bits_per_second / power)} {unit}"
    return f"{_three(bits_per_second)} bit/s"


def format_seconds(value: float) -> str:
    """A duration for people, three significant digits."""
    for power, unit in ((1.0, "s"), (1e-3, "ms")):
        if abs(value) >= 0.9995 * power:
            return f"{_three(value / power)} {unit}"
    return f"{_three(value / 1e-6)} µs" if value else "0 s"


def _three(value: float) -> str:
    """Three significant digits, and all before the point."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _finite(value: float, text: object) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a finite number of at least 0")
    return value
