"""Who runs blocks for somebody: in this process, or in a worker process of this machine (see `node` for the rest).

    host = WorkerHost("edge")
    host.run(package.to_message()).result()
    answer = host.run(Message("run", {"route": [{"stage": package.stage_id}]}, parts)).result()
    host.close()

Nothing above a host knows which form it has.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from edgeward.errors import EdgewardError, HostError
from edgeward.wire.frames import receive, send
from edgeward.wire.header import Limits
from edgeward.wire.messages import Message
from edgeward.wire.outbox import Outbox
from edgeward.wire.server import StageServer

__all__ = ["Host", "LocalHost", "WorkerHost", "serve_stream"]


class Host(ABC):
    """Takes orders. `name` is the device's in the fleet."""

    name: str

    @abstractmethod
    def run(self, order: Message) -> Future[Message]:
        """Begin an order; its answer comes later, a refusal as an answer of kind "error".

        The future raises HostError when the host died or cannot be reached.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the host; what is under way fails."""

    @property
    def alive(self) -> bool:
        """Whether orders can be given at the moment."""
        return True


class LocalHost(Host):
    """Runs stages in a thread of this process."""

    def __init__(self, server: StageServer) -> None:
        self.name, self.server = server.name, server
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"host-{server.name}")

    def run(self, order: Message) -> Future[Message]:
        return self._thread.submit(self.server.handle, order)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


class WorkerHost(Host):
    """Runs stages in a process of its own on this machine; ends with this one. memory, threads: as of `StageServer`."""

    def __init__(
        self, name: str, memory: int | None = None, threads: int = 1, prefix: Sequence[str] = (), patience: float = 60.0
    ) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        command = [*prefix, sys.executable, "-m", "edgeward.wire.worker", name, str(theirs.fileno()), str(threads)]
        try:
            self.process = subprocess.Popen(  # noqa: S603 (our own module)
                [*command, str(memory or 0)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            raise HostError(f"worker {name!r} cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        self._socket = ours
        self._waiting: dict[int, Future[Message]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._gone = ""
        self._outbox = Outbox[Message](lambda order: send(ours, order), self._unsent, name)
        threading.Thread(target=self._listen, name=f"host-{name}", daemon=True).start()
        try:
            self.run(Message("describe", {})).result(patience)
        except (TimeoutError, HostError) as error:
            self.close()
            raise HostError(f"worker {name!r} did not start within {patience:g} s: {error}") from error

    @property
    def alive(self) -> bool:
        return not self._gone

    def run(self, order: Message) -> Future[Message]:
        future: Future[Message] = Future()
        with self._lock:
            if not self._gone:
                number = next(self._numbers)
                self._waiting[number] = future
                self._outbox.put(replace(order, sequence=number))
                return future
        future.set_exception(HostError(self._gone))
        return future

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._lose(f"worker {self.name!r} was closed")
        self._outbox.close()
        self._socket.close()

    def _listen(self) -> None:
        reason = f"worker {self.name!r} died while it worked"
        try:
            while (answer := receive(self._socket, Limits(max_bytes=1 << 32))) is not None:
                with self._lock:
                    future = self._waiting.pop(answer.sequence, None)
                if future is not None:
                    future.set_result(answer)
        except (OSError, EdgewardError) as error:
            reason = f"worker {self.name!r} cannot be heard any more: {error}"
        self._lose(reason)

    def _unsent(self, order: Message, error: Exception) -> None:
        with self._lock:
            future = self._waiting.pop(order.sequence, None)
        if future is not None:
            future.set_exception(HostError(f"worker {self.name!r} cannot be told any more: {error}"))

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._gone = self._gone or reason
            lost, self._waiting = list(self._waiting.values()), {}
        for future in lost:
            future.set_exception(HostError(reason))


def serve_stream(connection: Any, server: StageServer) -> None:
    """Answer orders from a connected socket until the other side hangs up."""
    with contextlib.suppress(OSError, EdgewardError):
        while (order := receive(connection, server.limits)) is not None:
            send(connection, server.handle(order))
