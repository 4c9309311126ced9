"""The workers of the suite: as many as there are cores to use, and none beside a test that is alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import workers
from workers import Turns, cores


def test_cores_are_those_the_container_grants(tmp_path):
    bound = cores(tmp_path)  # no control groups there
    assert bound >= 1
    for text, granted in (("max 100000", bound), ("100000 100000", 1), ("50000 100000", 1), ("10000000 1000", bound)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert cores(tmp_path) == granted
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for text, granted in (("-1", bound), ("150000", 1), ("0", bound)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(text + "\n")
        assert cores(tmp_path) == granted


def test_without_such_locks_tests_run_without_turns():
    """As on Windows."""
    script = "import sys; sys.modules['fcntl'] = None; import workers; print(workers.Turns.possible())"
    environment = {"PYTHONPATH": str(Path(workers.__file__).parent)}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


OTHER = """
import sys
from types import SimpleNamespace
from workers import Turns
held = Turns(sys.argv[1]).pytest_runtest_protocol(SimpleNamespace(get_closest_marker=lambda name: sys.argv[2] == name or None))
next(held)
print("runs", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(("theirs", "mine", "together"), [("", "", True), ("alone", "", False), ("", "alone", False)])
def test_nothing_runs_beside_a_test_that_is_alone(tmp_path, monkeypatch, theirs, mine, together):
    pytest.importorskip("fcntl", reason="workers take turns by fcntl")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    turns, runs = Turns("run"), threading.Event()

    def run():
        held = turns.pytest_runtest_protocol(SimpleNamespace(get_closest_marker=lambda name: mine == name or None))
        next(held)
        runs.set()
        held.close()

    environment = {"PYTHONPATH": str(Path(workers.__file__).parent), "TMPDIR": str(tmp_path)}
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, "run", theirs],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "runs\n"
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert runs.wait(20 if together else 0.3) == together
    finally:
        other.communicate("\n")
    assert runs.wait(20)
    thread.join(20)
    turns.pytest_unconfigure()
    assert not list(tmp_path.iterdir())
