"""Playing bandwidth traces on the wires of an emulated fleet.

player = TracePlayer(machinery.set_bandwidth, {("pi", "box"): load_trace(path)})
player.start()
...
player.close()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from edgeward.errors import FleetError
from edgeward.fleet.traces import Trace

__all__ = ["TracePlayer"]

_SHORTEST_STEP = 0.02  # changing a wire takes some milliseconds; steps shorter than this are played at their last rate


class TracePlayer:
    """A thread that sets the bandwidth of each way when its trace says so; all traces begin at `start`.

    set_bandwidth: takes source, target and bits per second.
    """

    def __init__(
        self, set_bandwidth: Callable[[str, str, float], None], traces: Mapping[tuple[str, str], Trace]
    ) -> None:
        self._set = set_bandwidth
        self._traces = traces
        self._end = threading.Event()
        self._fault: FleetError | None = None
        self._thread = threading.Thread(target=self._run, name="edgeward-traces", daemon=True)

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    def close(self) -> None:
        """Stop. Raises FleetError when a wire could not be set, for what was measured is then not as described."""
        self._end.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        began = time.monotonic()
        set_to: dict[tuple[str, str], float] = {}
        try:
            while True:
                now = time.monotonic() - began
                for way, trace in self._traces.items():
                    rate = trace.at(now)
                    if set_to.get(way) != rate:
                        self._set(*way, rate)
                        set_to[way] = rate
                pause = min(trace.until_change(now) for trace in self._traces.values())
                if self._end.wait(max(_SHORTEST_STEP, pause)):
                    return
        except FleetError as error:
            self._fault = error
