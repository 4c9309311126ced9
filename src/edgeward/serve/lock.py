"""One box per data folder: a second one would mix up log and store.

lock = hold_folder(Path("box-data"))
...
lock.release()
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from edgeward.errors import StoreError

__all__ = ["FolderLock", "hold_folder"]


class FolderLock:
    """Held until released or until the process ends, however it ends."""

    def __init__(self, file: int) -> None:
        self._file: int | None = file

    def release(self) -> None:
        """Let another box use the folder. Safe to call twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def hold_folder(folder: Path) -> FolderLock:
    """Claim `folder`, made if need be. Raises StoreError when it cannot be used or another box holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"cannot use the folder {folder}: {error.strerror}; choose another with --set data=…"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise StoreError(
            f"another box is using {folder}; stop it or choose another folder with --set data=…"
        ) from error
    return FolderLock(file)
