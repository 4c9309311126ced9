"""What a box remembers: results, tracks and events in SQLite, and as JSON lines when asked.

    store = ResultStore(folder, config.store)
    store.add(StoredResult("people", "street", 17, at=time.time(), result={...}))
    store.close()

A thread of its own writes, in one transaction a second, in WAL mode: `kill -9` leaves the database
intact and loses at most that second. When the disk is full, results are counted as lost, serving
goes on, and writing resumes by itself once there is room.
"""

from __future__ import annotations

import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeward.errors import StoreError
from edgeward.serve.config import StoreConfig

__all__ = ["ResultStore", "StoredEvent", "StoredResult"]

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, query TEXT NOT NULL, camera TEXT NOT NULL,
    frame INTEGER NOT NULL, result TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS results_by_query ON results (query, at);
CREATE INDEX IF NOT EXISTS results_by_time ON results (at);
CREATE TABLE IF NOT EXISTS tracks (
    run TEXT NOT NULL, query TEXT NOT NULL, track INTEGER NOT NULL, class_id INTEGER NOT NULL,
    first_at REAL NOT NULL, last_at REAL NOT NULL, results INTEGER NOT NULL,
    PRIMARY KEY (run, query, track)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tracks_by_time ON tracks (last_at);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, camera TEXT, query TEXT,
    text TEXT NOT NULL, thumbnail BLOB);
CREATE INDEX IF NOT EXISTS events_by_time ON events (at);
"""

TRACK = """
INSERT INTO tracks VALUES (?, ?, ?, ?, ?, ?, 1)
ON CONFLICT DO UPDATE SET last_at = excluded.last_at, class_id = excluded.class_id, results = results + 1
"""

FLUSH_SECONDS = 1.0
PRUNE_SECONDS = 60.0
QUEUE_LIMIT = 20_000
PICTURES_LIMIT = 500
JSONL_SHARE = 4


@dataclass(frozen=True)
class StoredResult:
    """One answer; `at` is a Unix time."""

    query: str
    camera: str
    frame: int
    at: float
    result: dict[str, Any]


@dataclass(frozen=True)
class StoredEvent:
    """One event for people. A picture that is still to be encoded is given as a function."""

    at: float
    kind: str
    camera: str | None
    query: str | None
    text: str
    thumbnail: bytes | Callable[[], bytes] | None = None


class ResultStore:
    """Open it once per box; `add` from any thread. Raises StoreError when the folder cannot be used."""

    def __init__(self, folder: Path, config: StoreConfig) -> None:
        self.path = folder / "box.sqlite"
        self.lost = 0
        self.trouble = ""
        self._config = config
        self._run = f"{time.time():.3f}"
        self._queue: queue.Queue[StoredResult | StoredEvent | None] = queue.Queue(QUEUE_LIMIT)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = self._connect()
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot use {self.path}: {error}; choose another 'data' folder or move the file away"
            ) from error
        self._jsonl = folder / "results.jsonl" if config.jsonl else None
        self._thread = threading.Thread(target=self._write_forever, name="edgeward-store", daemon=True)
        self._thread.start()

    def add(self, item: StoredResult | StoredEvent) -> None:
        """Queue an item; it is on disk within about a second. Counts it as lost when the disk cannot keep up."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.lost += 1

    @property
    def behind(self) -> bool:
        """Whether so much is queued that pictures, which hold whole frames in memory, should be left out."""
        return self._queue.qsize() > PICTURES_LIMIT

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued and stop."""
        self._queue.put(None)
        self._thread.join(timeout)

    def results(self, query: str, limit: int, before: float | None = None) -> list[dict[str, Any]]:
        """A query's newest results, newest first, older than the Unix time `before` when given."""
        rows = self._read(
            "SELECT at, frame, result FROM results WHERE query = ? AND at < ? ORDER BY at DESC LIMIT ?",
            (query, before if before is not None else 1e18, limit),
        )
        return [{"at": at, "frame_index": frame, "result": json.loads(result)} for at, frame, result in rows]

    def events(self, limit: int, before_id: int | None = None) -> list[tuple[int, StoredEvent]]:
        """The newest events with their ids, newest first; `thumbnail` is empty bytes where there is one."""
        rows = self._read(
            "SELECT id, at, kind, camera, query, text, CASE WHEN thumbnail IS NULL THEN NULL ELSE x'' END"
            " FROM events WHERE id < ? ORDER BY id DESC LIMIT ?",
            (before_id if before_id is not None else 1 << 62, limit),
        )
        return [(row[0], StoredEvent(*row[1:])) for row in rows]

    def thumbnail(self, event_id: int) -> bytes | None:
        """JPEG of an event."""
        rows = self._read("SELECT thumbnail FROM events WHERE id = ?", (event_id,))
        return rows[0][0] if rows else None

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=1.0)
        try:
            return db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error
        finally:
            db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=5.0, check_same_thread=False, isolation_level=None)
        # Set before the first table: it lets the file shrink when old rows go.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def _write_forever(self) -> None:
        pruned_at = 0.0
        running = True
        while running:
            items, running = self._take_all()
            if items:
                self._guarded(partial(self._write, items), len(items))
            if time.monotonic() - pruned_at >= PRUNE_SECONDS:
                pruned_at = time.monotonic()
                self._guarded(self._prune, 0)
        self._db.close()

    def _take_all(self) -> tuple[list[StoredResult | StoredEvent], bool]:
        """Everything that comes within a second, and whether to go on."""
        items: list[StoredResult | StoredEvent] = []
        until = time.monotonic() + FLUSH_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if item is None:
                return items, False
            items.append(item)
        return items, True

    def _guarded(self, work: Callable[[], None], items: int) -> None:
        """A disk that refuses costs these items, never the thread."""
        try:
            work()
            self.trouble = ""
        except (OSError, sqlite3.Error) as error:
            self.lost += items
            if not self.trouble:
                logger.warning("%s: %s; serving goes on, %d results lost so far", self.path, error, self.lost)
            self.trouble = f"{self.path.name}: {error}"
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _write(self, items: list[StoredResult | StoredEvent]) -> None:
        results = [item for item in items if isinstance(item, StoredResult)]
        events = [item for item in items if isinstance(item, StoredEvent)]
        texts = [json.dumps(item.result, separators=(",", ":")) for item in results]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT INTO results (at, query, camera, frame, result) VALUES (?, ?, ?, ?, ?)",
            [(item.at, item.query, item.camera, item.frame, text) for item, text in zip(results, texts, strict=True)],
        )
        self._db.executemany(TRACK, [row for item in results for row in self._track_rows(item)])
        self._db.executemany(
            "INSERT INTO events (at, kind, camera, query, text, thumbnail) VALUES (?, ?, ?, ?, ?, ?)",
            [(item.at, item.kind, item.camera, item.query, item.text, _encoded(item.thumbnail)) for item in events],
        )
        self._db.execute("COMMIT")
        if self._jsonl is not None:
            self._append_jsonl(self._jsonl, results)

    def _track_rows(self, item: StoredResult) -> list[tuple[Any, ...]]:
        ids = item.result.get("tracker_id") or []
        return (
            [
                (self._run, item.query, track, class_id, item.at, item.at)
                for track, class_id in zip(ids, item.result["class_id"], strict=True)
                if track >= 0
            ]
            if ids
            else []
        )

    def _append_jsonl(self, path: Path, results: list[StoredResult]) -> None:
        if path.exists() and path.stat().st_size > self._config.keep_bytes // JSONL_SHARE:
            path.replace(path.with_suffix(".old.jsonl"))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(vars(item), separators=(",", ":")) + "\n" for item in results)

    def _prune(self) -> None:
        """Drop what is too old, then the oldest results until the file is small enough."""
        oldest = time.time() - self._config.keep_days * 86400
        for table, column in (("results", "at"), ("tracks", "last_at"), ("events", "at")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} < ?", (oldest,))  # noqa: S608
        while self._bytes() > self._config.keep_bytes:
            gone = self._drop_oldest("results") + self._drop_oldest("events") + self._drop_oldest("tracks")
            self._shrink()
            if not gone:
                break
        self._shrink()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _drop_oldest(self, table: str) -> int:
        column = "last_at" if table == "tracks" else "at"
        newest_to_go = self._db.execute(
            f"SELECT max({column}) FROM (SELECT {column} FROM {table} ORDER BY {column}"  # noqa: S608
            f" LIMIT (SELECT count(*) / 10 + 1 FROM {table}))"
        ).fetchone()[0]
        if newest_to_go is None:
            return 0
        return self._db.execute(f"DELETE FROM {table} WHERE {column} <= ?", (newest_to_go,)).rowcount  # noqa: S608

    def _shrink(self) -> None:
        """Give free pages back. `execute` would stop after the first page: the pragma yields no rows to fetch."""
        self._db.executescript("PRAGMA incremental_vacuum")

    def _bytes(self) -> int:
        pages: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        size: int = self._db.execute("PRAGMA page_size").fetchone()[0]
        return (pages - free) * size


def _encoded(picture: bytes | Callable[[], bytes] | None) -> bytes | None:
    return picture() if callable(picture) else picture
