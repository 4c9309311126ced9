"""How the suite shares the machine: a worker per core, and no worker beside a test that measures time.

    python -m pytest -n auto --dist loadfile     # what `make test` runs

A test marked `alone` runs while every other worker waits: it tells how long the machine or another process takes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MOST = 2  # each worker holds about a gigabyte, and what tests start needs a core too
_DOOR, _ROOM = 0, 1  # the bytes of the shared file that are locked


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores this process may use: those it is bound to, or what its container grants, whichever is less."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        return max(1, min(bound, int(_granted(root))))
    return bound


def _granted(root: Path) -> float:
    """The container's quota in cores, of either version of control groups. Raises ValueError when there is none."""
    if (root / "cpu.max").is_file():
        quota, period = (root / "cpu.max").read_text().split()
    else:
        quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    if float(quota) <= 0:
        raise ValueError("no limit")
    return float(quota) / float(period)


class Turns:
    """The plugin of a worker that lets many tests run at a time, or one that is alone.

    Record locks (fcntl) of one file: they end with the worker, and what it forks does not hold them.
    """

    @staticmethod
    def possible() -> bool:
        """Whether there are such locks here."""
        return fcntl is not None

    def __init__(self, run: str) -> None:
        self._path = Path(tempfile.gettempdir()) / f"edgeward-tests-{run}.lock"
        self._file = self._path.open("a+b")

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit of the test
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        assert fcntl is not None
        alone = item.get_closest_marker("alone") is not None
        # Who waits to be alone holds the door, so that nobody else enters before.
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _DOOR)
        fcntl.lockf(self._file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, 1, _ROOM)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _DOOR)
        try:
            return (yield)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _ROOM)

    def pytest_unconfigure(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
