"""The process behind a `WorkerHost`: stages served over an inherited socket. Started by it, not by people.

python -m edgeward.wire.worker NAME FD THREADS MEMORY
"""

from __future__ import annotations

import signal
import socket
import sys

from edgeward.wire.header import Limits
from edgeward.wire.hosts import serve_stream
from edgeward.wire.pages import keep_freed_memory
from edgeward.wire.server import StageServer

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Serve until the socket is closed; an interrupt of the terminal is for the parent to act on."""
    name, descriptor, threads, memory = arguments
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = StageServer(name, int(memory) or None, int(threads), Limits(max_bytes=1 << 32))
    serve_stream(socket.socket(fileno=int(descriptor)), server)


if __name__ == "__main__":
    main(sys.argv[1:])
