"""Processes that really compete for a core: the box there gets a half or a third of it.

with Competition(core=1) as others:
    others.run(2)            # three processes share the core from now on
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

MOST = 2
BUSY = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:  # nobody else would end it
    pass
"""


class Competition:
    """Busy loops pinned to one core, none of which runs until asked."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, count: int) -> None:
        """Have so many of them run, at most MOST."""
        for place, process in enumerate(self._processes):
            process.send_signal(signal.SIGCONT if place < count else signal.SIGSTOP)

    def __enter__(self) -> Self:
        for _ in range(MOST):
            process = subprocess.Popen([sys.executable, "-c", BUSY, str(self._core)], stdout=subprocess.PIPE)
            self._processes.append(process)
            assert process.stdout is not None
            process.stdout.readline()
        self.run(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
