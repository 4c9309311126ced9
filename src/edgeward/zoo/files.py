"""Model files: from untrusted places, with sizes checked before anything is read, and written wholly or not at all.

data = read_bytes(path, limit=1 << 30)
print(sha256(path))
with replacing(target) as temporary:
    temporary.write_bytes(data)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeward.errors import ModelError, StoreError
from edgeward.units import format_bytes

__all__ = ["read_bytes", "replacing", "sha256", "size"]


def size(path: Path, limit: int) -> int:
    """Bytes of a regular file. ModelError when it is absent, no file, empty, or larger than `limit`."""
    try:
        if not path.is_file():
            raise ModelError(f"no file {path}; check the path" if not path.exists() else f"{path} is not a file")
        count = path.stat().st_size
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not 0 < count <= limit:
        raise ModelError(
            f"{path} has {format_bytes(count)}; a model file has more than none and at most {format_bytes(limit)}"
        )
    return count


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes. Raises ModelError as `size` does."""
    size(path, limit)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if len(data) > limit:
        raise ModelError(f"{path} has more than {format_bytes(limit)}")
    return data


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. ModelError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place when the block ends well, at once and wholly written.

    Raises StoreError when the disk refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; free some space or choose another 'cache'") from error
