"""Profiles on disk: plain JSON, and published tables that load as profiles too.

    profile = load_profile(Path("resnet50.json"))
    save_profile(profile, Path("resnet50.json"))

A published table has, per block, `first_layer`, `last_layer`, `output_bytes` and `seconds` per machine, as the
benchmark data of Scission (UCC 2020) can be written.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeward.errors import PlanError, StoreError
from edgeward.graph.blockcost import BlockCost
from edgeward.profile.profile import FORMAT, DeviceTimes, Profile

__all__ = ["load_profile", "replace_bytes", "replace_text", "save_profile"]

LARGEST_BYTES = 64 << 20


def load_profile(path: Path) -> Profile:
    """A profile from its file. Raises PlanError when the file is absent, too large, or not a profile of this format."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise PlanError(f"{path} has {path.stat().st_size} bytes; profiles have at most {LARGEST_BYTES}")
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(
            f"cannot read profile {path}: {error.strerror}; make one with: edgeward profile MODEL"
        ) from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is not JSON ({error}); make a profile with: edgeward profile MODEL") from error
    if not isinstance(record, dict) or "blocks" not in record:
        raise PlanError(f"{path} is not a profile: it has no 'blocks'; make one with: edgeward profile MODEL")
    if "format" in record and record["format"] != FORMAT:
        raise PlanError(
            f"{path} has profile format {record['format']!r}, this version reads {FORMAT}; profile the model again"
        )
    try:
        return Profile.model_validate(record) if "format" in record else _published(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "profile"
        raise PlanError(f"{path}: {where}: {first['msg']}; profile the model again") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PlanError(f"{path} is neither a profile nor a published table: {error!r}") from error


def _published(record: dict[str, Any]) -> Profile:
    rows = record["blocks"]
    blocks = tuple(
        BlockCost(
            name=str(row["cut_name"]),
            output_bytes=row["output_bytes"],
            layers=(row["first_layer"], row["last_layer"]),
        )
        for row in rows
    )
    machines = list(rows[0]["seconds"])
    return Profile(
        model=str(record["model"]),
        fingerprint=hashlib.sha256(
            json.dumps([record["model"], [one.model_dump() for one in blocks]]).encode()
        ).hexdigest(),
        input_bytes=record["default_input_upload_bytes"],
        blocks=blocks,
        times={
            name: DeviceTimes(seconds=tuple(row["seconds"][name] for row in rows), notes=("published table",))
            for name in machines
        },
        origin={"source": str(record.get("source", "")), "framework": str(record.get("framework", ""))},
    )


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile, wholly or not at all. Raises StoreError when the disk refuses."""
    replace_text(path, json.dumps(profile.model_dump(mode="json"), indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Put a text where `path` is, wholly or not at all. Raises StoreError when the disk refuses."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """Put these bytes where `path` is, wholly or not at all. Raises StoreError when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; free some space or choose another place") from error
