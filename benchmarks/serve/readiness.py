"""How long a person waits: for the help text, for the first result."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from harness import row


def rows(full: bool) -> list[dict[str, Any]]:
    """Seconds of wall time of whole commands, medians."""
    repeats = 7 if full else 2
    help_times = [_seconds([sys.executable, "-m", "edgeward", "--help"]) for _ in range(repeats)]
    bare_times = [_seconds([sys.executable, "-c", "pass"]) for _ in range(repeats)]
    first = [_first_result() for _ in range(repeats)]
    return [
        row(
            "ready.help", "wall seconds of `edgeward --help`",
            baseline=f"python -c pass: {statistics.median(bare_times):.3f} s",
            ours=statistics.median(help_times), spread=(min(help_times), max(help_times)), unit="s", bar="<= 0.5",
        ),
        row(
            "ready.first_result", "wall seconds from starting `edgeward serve` to its first result, caches warm",
            baseline="none", ours=statistics.median(first), spread=(min(first), max(first)), unit="s", bar="<= 10",
        ),
    ]  # fmt: skip


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def _first_result() -> float:
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "edgeward", "serve", "--set", "web.port=0", "--set", f"data={data}"]
        begin = time.perf_counter()
        child = subprocess.Popen(
            [*command, "--seconds", "20"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert child.stderr is not None
        for line in child.stderr:
            if "first result" in line:
                break
        taken = time.perf_counter() - begin
        child.kill()
        child.wait()
        return taken
