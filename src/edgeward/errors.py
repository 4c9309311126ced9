"""Everything edgeward raises on purpose.

    EdgewardError                  a user can act on it: the message names the value, the range and the next step
    ├── ConfigError                a configuration file or option is wrong
    ├── SourceError                a video source cannot be opened or read
    ├── ModelError                 a model file is missing, corrupt, or not of the stated task
    ├── BudgetError                a memory or time budget cannot be met
    ├── StoreError                 the disk refused or a stored file is damaged
    ├── TraceError                 a network cannot be traced or cut into blocks
    ├── FleetError                 a device or link of a fleet is not there or cannot be set up
    ├── PlanError                  no plan satisfies what is asked, or values do not belong together
    ├── WireError                  a message is damaged, too large, replayed, or of another version or codec
    ├── HostError                  a host cannot be reached, refuses, or died while it worked
    ├── LogError                   an event log cannot be read or does not fit what is asked of it
    ├── PruneError                 a network cannot be made smaller as asked
    └── MissingExtra               a feature needs an optional dependency that is not installed

The command line prints the message in one line and exits with code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BudgetError",
    "ConfigError",
    "EdgewardError",
    "FleetError",
    "HostError",
    "LogError",
    "MissingExtra",
    "ModelError",
    "PlanError",
    "PruneError",
    "SourceError",
    "StoreError",
    "TraceError",
    "WireError",
    "nearest",
]


class EdgewardError(Exception):
    """Base of every error a user can act on."""


class ConfigError(EdgewardError):
    """A configuration file or option is wrong."""


class SourceError(EdgewardError):
    """A video source cannot be opened or read."""


class ModelError(EdgewardError):
    """A model file is missing, corrupt, or not of the stated task."""


class BudgetError(EdgewardError):
    """A memory or time budget cannot be met."""


class StoreError(EdgewardError):
    """The disk refused, or a stored file is damaged."""


class TraceError(EdgewardError):
    """A network cannot be traced or cut into blocks."""


class FleetError(EdgewardError):
    """A device or link of a fleet is not there or cannot be set up."""


class PlanError(EdgewardError):
    """No plan satisfies what is asked, or the values given do not belong together."""


class WireError(EdgewardError):
    """A message is damaged, too large, replayed, or of another version or codec."""


class HostError(EdgewardError):
    """A host cannot be reached, refuses what it is asked, or died while it worked."""


class LogError(EdgewardError):
    """An event log cannot be read or does not fit what is asked of it."""


class PruneError(EdgewardError):
    """A network cannot be made smaller as asked, or a mask or score does not fit it."""


class MissingExtra(EdgewardError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'edgeward[{extra}]'")


def nearest(word: str, known: Iterable[str]) -> str:
    """A phrase for error messages: the closest known word, or all of them.

    >>> nearest("deadlin", ["deadline", "rate"])
    "did you mean 'deadline'?"
    >>> nearest("xyz", ["deadline", "rate"])
    'known: deadline, rate'
    """
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(options)}"
