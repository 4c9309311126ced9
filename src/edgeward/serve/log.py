"""The append-only event log: one JSON value a line, in segments that each begin with the whole state.

    log = EventLog(folder, config={...}, state=state, keep_bytes=256 << 20)
    log.append(event, state_after)
    for recording in read_log(folder):
        state, events = recording.state, recording.events

Every line reaches the operating system before the next event is handled, so `kill -9` loses at
most a line that was being written; readers stop at the last whole one. When the disk is full the
log pauses, serving goes on, and the log starts a new segment as soon as it can write again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeward.clock import NS
from edgeward.errors import LogError
from edgeward.serve.events import EVENT, Event
from edgeward.serve.state import STATE, State

__all__ = ["EventLog", "Recording", "read_log"]

VERSION = 1
SEGMENTS = 8
MAX_LINE_BYTES = 64 << 20


class EventLog:
    """Writes events. One thread at a time.

    state: the box before its first event.
    paused: why nothing is being written, or "" when all is well; `lost` counts unwritten events.
    Raises LogError when the folder cannot be made.
    """

    def __init__(self, folder: Path, config: dict[str, Any], state: State, keep_bytes: int) -> None:
        self.folder = folder
        self.paused = ""
        self.lost = 0
        self._config = config
        self._before = state
        self._retry_ns = 0
        self._segment_bytes = max(keep_bytes // SEGMENTS, 64 << 10)
        self._file: int | None = None
        self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogError(f"cannot make the log folder {folder}: {error.strerror}; choose another 'data'") from error
        self._next = max((_number(path) for path in _segments(folder)), default=-1) + 1

    def append(self, event: Event, after: State) -> None:
        """Write `event`, which led to the state `after`; begins a new segment when one is due."""
        due = self._file is None or self._written >= self._segment_bytes
        # A state says which loads and inferences are under way, but an eviction's outcome belongs beside its decision.
        if due and all(model.status != "evicting" for model in self._before.models.values()):
            self._start_segment(event.time_ns)
        if self._file is None or not self._write(EVENT.dump_json(event) + b"\n", event.time_ns):
            self.lost += 1
        self._before = after

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _start_segment(self, now_ns: int) -> None:
        if self.paused and now_ns < self._retry_ns:
            return
        self.close()
        path = self.folder / f"events.{self._next:06d}.jsonl"
        header = {"edgeward_log": VERSION, "config": self._config, "state": json.loads(STATE.dump_json(self._before))}
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except OSError as error:
            self._pause(error, now_ns)
            return
        self._next += 1
        self._written = 0
        if self._write(json.dumps(header).encode() + b"\n", now_ns):
            self.paused = ""
            for old in _segments(self.folder)[:-SEGMENTS]:
                old.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)

    def _write(self, line: bytes, now_ns: int) -> bool:
        assert self._file is not None
        try:
            done = os.write(self._file, line)
            if done < len(line):
                os.ftruncate(self._file, self._written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._pause(error, now_ns)
            return False
        self._written += len(line)
        return True

    def _pause(self, error: OSError, now_ns: int) -> None:
        self.close()
        self.paused = f"event log paused: {error.strerror or error}"
        self._retry_ns = now_ns + NS


@dataclass(frozen=True)
class Recording:
    """A stretch of log without gaps: the state before it and all events since, from one or more segments."""

    path: Path
    config: dict[str, Any]
    state: State
    events: tuple[Event, ...]


def read_log(path: Path) -> list[Recording]:
    """The recordings in a log folder, or in a single segment file, oldest first.

    Raises LogError when there is none or one is not an edgeward log. A torn last line is left out.
    """
    files = _segments(path) if path.is_dir() else [path]
    recordings: list[Recording] = []
    for segment in filter(None, map(_read_segment, files)):
        last = recordings[-1] if recordings else None
        if last is not None and last.events and last.events[-1].time_ns == segment.state.now_ns:
            recordings[-1] = replace(last, events=last.events + segment.events)
        else:
            recordings.append(segment)
    if not recordings:
        raise LogError(f"no event log in {path}; expected a folder of files like events.000000.jsonl")
    return recordings


def _read_segment(path: Path) -> Recording | None:
    lines = _lines(path)
    first = next(lines, None)
    if first is None:  # killed before the header was whole
        return None
    try:
        header = json.loads(first)
        if header["edgeward_log"] != VERSION:
            raise LogError(f"{path} is of log version {header['edgeward_log']}; this edgeward reads version {VERSION}")
        state = STATE.validate_python(header["state"])
        config = dict(header["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(f"{path} is not an edgeward event log: {_short(error)}") from error
    events: list[Event] = []
    for number, line in enumerate(lines, start=2):
        try:
            events.append(EVENT.validate_json(line))
        except ValidationError as error:
            raise LogError(f"{path} line {number} is damaged: {_short(error)}") from error
    return Recording(path, config, state, tuple(events))


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    return
                yield line
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}") from error


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.*.jsonl"), key=_number)


def _number(path: Path) -> int:
    middle = path.name.split(".")[1]
    return int(middle) if middle.isdigit() else -1


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
