"""What emulated fleets have created, on disk, so that it can be removed when its owner has died.

record = Record(identity="1f0c9a", mode="kernel", owner=Process.current(), boot=boot_id(), fleet=fleet)
write_new(folder, record)        # before anything is created
[r for r in read_all(folder) if r.abandoned]
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgeward.errors import FleetError
from edgeward.fleet.fleet import Fleet

__all__ = ["Process", "Record", "boot_id", "default_folder", "forget", "read_all", "write", "write_new"]

_MAX_BYTES = 16 << 20
_NAME = r"^ew-[0-9a-f]+-[0-9.]+$"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Process(_Value):
    """A process, told from a later one with the same number by when it started (clock ticks since boot)."""

    pid: int = Field(gt=0)
    start: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this number now; start is -1 when it has ended or cannot be asked."""
        return cls(pid=pid, start=_start(pid))

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls.of(os.getpid())

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        if self.start >= 0:
            return _start(self.pid) == self.start
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Record(_Value):
    """One emulated fleet. owner: None for one that stays up by itself. groups: folders of control groups."""

    identity: str = Field(pattern="^[0-9a-f]{6,12}$")
    mode: Literal["kernel", "shaper"]
    owner: Process | None
    boot: str
    fleet: Fleet
    origin: str = ""
    namespaces: tuple[Annotated[str, Field(pattern=_NAME)], ...] = ()
    groups: tuple[Path, ...] = ()
    processes: tuple[Process, ...] = ()

    @field_validator("groups")
    @classmethod
    def _ours(cls, groups: tuple[Path, ...]) -> tuple[Path, ...]:
        for group in groups:
            if not re.fullmatch(_NAME, group.name):
                raise ValueError(f"{group} is not a control group of a fleet")
        return groups

    @property
    def this_boot(self) -> bool:
        """Whether the machine has not been started anew since; if it has, the kernel's part is gone."""
        return self.boot == boot_id()

    @property
    def abandoned(self) -> bool:
        """Whether nobody will remove it."""
        return not self.this_boot or (self.owner is not None and not self.owner.alive)


def default_folder() -> Path:
    """The user's folder for records."""
    return Path(platformdirs.user_state_dir("edgeward")) / "fleets"


def boot_id() -> str:
    """What differs after each start of the machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write_new(folder: Path, record: Record) -> None:
    """Store a record whose identity must not be there yet. Raises FleetError when it is."""
    _store(folder, record, new=True)


def write(folder: Path, record: Record) -> None:
    """Replace a record."""
    _store(folder, record, new=False)


def forget(folder: Path, record: Record) -> None:
    """Remove a record once what it lists is gone."""
    _path(folder, record).unlink(missing_ok=True)


def read_all(folder: Path) -> list[Record]:
    """Every record of the folder. Raises FleetError for one that cannot be read."""
    records = []
    for path in sorted(folder.glob("ew-*.json")):
        try:
            if path.stat().st_uid != os.geteuid():
                continue  # what another user wrote is not ours to act on
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES} bytes")
            records.append(Record.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            continue  # another process removed it between listing and reading
        except (OSError, ValueError) as error:
            why = "not a record of this version" if isinstance(error, ValidationError) else error
            raise FleetError(f"cannot read the fleet record {path}: {why}; remove the file") from error
    return records


def _path(folder: Path, record: Record) -> Path:
    return folder / f"ew-{record.identity}.json"


def _store(folder: Path, record: Record, *, new: bool) -> None:
    """A record is linked or renamed into place, so that no reader ever sees half of one."""
    path = _path(folder, record)
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise FleetError(f"cannot make the folder {folder}: {error.strerror}; choose another state_dir") from error
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(record.model_dump_json(indent=1))
            if new:
                os.link(name, path)
            else:
                Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except FileExistsError as error:
        raise FleetError(
            f"fleet {record.fleet.name!r} is up already; run 'edgeward fleet down' with its file first"
        ) from error
    except OSError as error:
        raise FleetError(f"cannot write the fleet record {path}: {error.strerror}; choose another state_dir") from error


def _start(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name of the program, in parentheses, can hold blanks; the fields after it cannot.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])
    return -1
