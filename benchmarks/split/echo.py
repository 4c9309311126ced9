"""Two processes that send a tensor back and forth: by our messages over Zenoh, and by a raw socket."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from edgeward.wire.channel import Channel
from edgeward.wire.messages import Message, TensorPart, pack, unpack
from edgeward.wire.pages import keep_freed_memory


class Echo:
    """The asking side; each call returns seconds of one round trip."""

    def __init__(self, size: int) -> None:
        keep_freed_memory()  # as nodes do
        self.size = size
        self.data = bytes(range(256)) * (size // 256)
        self.ports = [free_port(), free_port()]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, self.ports), str(size)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.session = Channel(connect=[f"tcp/127.0.0.1:{self.ports[0]}"])
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.session.subscribe("bench/back", self.answers.put)
        self.plain = socket.create_connection(("127.0.0.1", self.ports[1]))
        self.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.plain.close()
        self.process.kill()
        self.process.wait()

    def channel(self) -> float:
        start = time.perf_counter()
        part = TensorPart("identity", "U8", (self.size,), memoryview(self.data))
        self.session.publish("bench/there", pack(Message("run", {}, (part,))))
        back = unpack(self.answers.get(timeout=10))
        taken = time.perf_counter() - start
        assert back.tensors[0].data.nbytes == self.size
        return taken

    def socket(self) -> float:
        start = time.perf_counter()
        self.plain.sendall(self.data)
        exactly(self.plain, self.size)
        return time.perf_counter() - start

    def bytes_per_message(self, count: int) -> float:
        """What crosses loopback per message, one way; the least of five counts, since others use it, too."""
        found = []
        for _ in range(5):
            before = loopback_bytes()
            for _ in range(count):
                self.channel()
            found.append((loopback_bytes() - before) / (2 * count))
        return min(found)


def loopback_bytes() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def exactly(connection: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = connection.recv_into(view[done:])
        if not got:
            raise EOFError
        done += got
    return data


def serve(channel_port: int, socket_port: int, size: int) -> None:
    keep_freed_memory()
    session = Channel(listen=f"tcp/127.0.0.1:{channel_port}")

    def back(data: Any) -> None:
        message = unpack(data)
        session.publish("bench/back", pack(Message("result", {}, message.tensors)))

    session.subscribe("bench/there", back)
    with socket.create_server(("127.0.0.1", socket_port)) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(EOFError, OSError):
            while True:
                connection.sendall(exactly(connection, size))


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:4]))
