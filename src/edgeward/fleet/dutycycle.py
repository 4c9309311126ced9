"""Keeping processes to a share of a core without the kernel's help, by stopping and continuing them.

    limiter = DutyCycle(share=0.25)
    limiter.add(process.pid)          # and whatever it starts
    ...
    limiter.close()                   # lets all of them run freely

A thread asks for the processor time used, and stops the processes for as long as they are ahead of their share. Works
for one's own processes without root. Where the system does not tell the time used, running counts as using a core.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

__all__ = ["DutyCycle", "cpu_seconds", "family", "kill_family"]

_PERIOD = 0.01
_CREDIT = 0.01  # seconds of unused processor time that are kept, as little as the kernel keeps


def family(pid: int) -> list[int]:
    """A process and its descendants, as far as the system tells."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(word) for word in children.read_text().split()]
    return found


def kill_family(pid: int) -> None:
    """Kill a process and its descendants."""
    for one in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def cpu_seconds(pid: int) -> float | None:
    """Processor time of all threads of a process; None when it has ended or the system does not tell.

    Source: clock_getcpuclockid(3); on Linux the clock's number holds the complement of the process id.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except (OSError, AttributeError, OverflowError):
        return None


class DutyCycle:
    """Keeps a set of processes together to `share` of a core. Its thread starts with the first process."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._roots: set[int] = set()
        self._used: dict[int, float] = {}
        self._balance = 0.0  # seconds of processor time that may still be used
        self._stopped = False
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, pid: int) -> None:
        """Limit this process and its descendants from now on."""
        with self._lock:
            self._roots.add(pid)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edgeward-duty-cycle", daemon=True)
                self._thread.start()

    def remove(self, pid: int) -> None:
        """No longer limit this process, which has ended: its number may come to mean another."""
        with self._lock:
            self._roots.discard(pid)

    def close(self) -> None:
        """Stop limiting; nothing is left stopped."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._end.wait(_PERIOD):
            now = time.monotonic()
            with self._lock:
                self._step(now - before)
            before = now
        with self._lock:
            self._signal(self._pids(), signal.SIGCONT)

    def _step(self, elapsed: float) -> None:
        pids = self._pids()
        self._balance = min(self._balance + self._share * elapsed, _CREDIT) - self._spent(pids, elapsed)
        stop = self._balance < 0
        if stop or stop != self._stopped:  # stop again while stopped: a child may have been started since
            self._signal(pids, signal.SIGSTOP if stop else signal.SIGCONT)
        self._stopped = stop

    def _pids(self) -> list[int]:
        return [pid for root in self._roots for pid in family(root)]

    def _spent(self, pids: list[int], elapsed: float) -> float:
        spent, seen = 0.0, {}
        for pid in pids:
            used = cpu_seconds(pid)
            if used is None:
                spent += 0.0 if self._stopped or Path("/proc/self/stat").exists() else elapsed
                continue
            spent += used - self._used.get(pid, 0.0)
            seen[pid] = used
        self._used = seen
        return spent

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
