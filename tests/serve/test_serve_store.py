"""The store keeps what it is given, drops what is old, survives kills and full disks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from edgeward.errors import StoreError
from edgeward.serve.config import StoreConfig
from edgeward.serve.store import ResultStore, StoredEvent, StoredResult

BOXES = {"xyxy": [[0, 0, 1, 1], [2, 2, 3, 3]], "confidence": [0.5, 0.6], "class_id": [0, 1], "tracker_id": [7, -1]}


def result(frame, at=None, query="q"):
    return StoredResult(query, "c", frame, time.time() if at is None else at, BOXES)


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_results_tracks_and_events_come_back_newest_first(tmp_path):
    store = ResultStore(tmp_path, StoreConfig(jsonl=True))
    now = time.time()
    for frame in range(5):
        store.add(result(frame, now + frame))
    store.add(StoredEvent(now, "appeared", "c", "q", "person 7 appeared", b"\xff\xd8jpeg"))
    store.add(StoredEvent(now, "camera", "c", None, "c live", lambda: b"late"))
    store.close()
    assert [row["frame_index"] for row in store.results("q", 3)] == [4, 3, 2]
    assert [row["frame_index"] for row in store.results("q", 9, before=now + 2)] == [1, 0]
    assert store.results("other", 9) == []
    (second, camera), (first, appeared) = store.events(10)
    assert (camera.text, appeared.text) == ("c live", "person 7 appeared")
    assert (store.thumbnail(first), store.thumbnail(second), store.thumbnail(999)) == (b"\xff\xd8jpeg", b"late", None)
    assert [event.text for _, event in store.events(10, before_id=second)] == ["person 7 appeared"]
    tracks = sqlite3.connect(store.path).execute("SELECT track, class_id, results FROM tracks").fetchall()
    assert tracks == [(7, 0, 5)]
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(5))


def test_what_is_too_old_goes(tmp_path):
    store = ResultStore(tmp_path, StoreConfig(keep_days=1))
    store.close()
    store = ResultStore(tmp_path, StoreConfig(keep_days=1))
    db = sqlite3.connect(store.path)
    day = 86400
    for age in (3 * day, 2 * day, 0):
        store.add(result(age, time.time() - age))
    until(lambda: [row[0] for row in db.execute("SELECT frame FROM results")] == [0])
    store.close()
    assert [row[0] for row in db.execute("SELECT frame FROM results")] == [0]


def test_the_file_stays_within_its_size(tmp_path):
    limit = 400_000
    store = ResultStore(tmp_path, StoreConfig())
    heavy = {"vector": [0.12345] * 500}
    for frame in range(400):
        store.add(StoredResult("q", "c", frame, time.time(), heavy))
    store.close()
    assert store.path.stat().st_size > 2 * limit
    store = ResultStore(tmp_path, StoreConfig(keep_bytes=limit))  # prunes when it starts
    until(lambda: store.path.stat().st_size <= limit)
    store.close()
    assert store.path.stat().st_size <= limit
    newest = store.results("q", 1)[0]["frame_index"]
    assert newest == 399


def test_kill_9_leaves_the_database_intact(tmp_path):
    script = f"""
import time
from pathlib import Path
from edgeward.serve.config import StoreConfig
from edgeward.serve.store import ResultStore, StoredResult
store = ResultStore(Path({str(tmp_path)!r}), StoreConfig())
print("ready", flush=True)
frame = 0
while True:
    store.add(StoredResult("q", "c", frame, time.time(), {BOXES!r}))
    frame += 1
    time.sleep(0.0005)
"""

    def rows():
        with contextlib.closing(sqlite3.connect(tmp_path / "box.sqlite", timeout=5)) as db:
            return db.execute("SELECT count(*) FROM results").fetchone()[0]

    for kills in (1, 2):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        child.stdout.readline()
        until(lambda least=200 * kills: rows() > least)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    db = sqlite3.connect(tmp_path / "box.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert rows() > 400


def test_a_full_disk_costs_results_but_nothing_else(tmp_path):
    """SQLite's own page limit stands in for the disk: the same error, from the same call."""
    store = ResultStore(tmp_path, StoreConfig())
    store.add(result(0))
    until(lambda: store.results("q", 9))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    for frame in range(1, 2000):
        store.add(result(frame))
    until(lambda: store.lost and store.trouble)
    assert store.lost == 1999
    assert "full" in store.trouble
    store._db.execute("PRAGMA max_page_count = 1000000").fetchone()
    store.add(result(5000))
    until(lambda: len(store.results("q", 9)) == 2 and not store.trouble)
    store.close()
    assert [row["frame_index"] for row in store.results("q", 9)] == [5000, 0]


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    (tmp_path / "box.sqlite").write_bytes(b"not a database, but somebody's data" * 100)
    with pytest.raises(StoreError, match="not a database"):
        ResultStore(tmp_path, StoreConfig())
    assert (tmp_path / "box.sqlite").read_bytes().startswith(b"not a database")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another 'data' folder"):
        ResultStore(tmp_path / "file" / "data", StoreConfig())
